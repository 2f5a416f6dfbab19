"""Prove, before anything is patched, that an opened block computes what the block did."""

import sys
from typing import Any

import torch
from torch import Tensor, nn

from batvit.config.config import BATConfig
from batvit.module_copy import quiet_copy
from batvit.reduction.block import ReducedBlock, become_dense, become_reduced
from batvit.reduction.site import Reduce

TRIAL_TOKENS = 12


def prove(block: nn.Module, reduced: type[ReducedBlock], i: int, width: int) -> None:
    """Refuse a block that computes something else once it is opened: its forward is not the one known here.

    Weights without values (meta), or that leave nothing finite, prove nothing, and pass.

    Raises:
        TypeError: naming the class and the difference.
    """
    # of quantised blocks the norms still say what is computed in
    real: list[Tensor] = [
        w for w in block.parameters() if w.is_floating_point() and w.itemsize > 1
    ] or [torch.empty(0)]
    weight = next((parameter for parameter in real if parameter.dim() > 1), real[0])
    if weight.is_meta:
        return
    # tokens that differ in direction, not by a constant that the norm would take away
    x = torch.randn(
        1, TRIAL_TOKENS, width, generator=torch.Generator().manual_seed(0), device="cpu"
    ).to(weight)
    keep_all = Reduce(
        BATConfig(keep_rate=1.0, blocks=(i,)), i, depth=i + 1, prefix=1, class_token=True
    )
    twin: Any = quiet_copy(block)
    if isinstance(twin, ReducedBlock):
        become_dense(twin)
    arguments = reduced.trial(twin, x)
    dense = reduced.__bases__[-1]
    library = dense.__module__.partition(".")[0]
    version = getattr(sys.modules[library], "__version__", "of unknown version")
    what = (
        f"{dense.__qualname__} of {library} {version} does not compute what batvit was written for"
    )
    with torch.no_grad():
        try:
            expected = twin(x, **arguments) - x
            become_reduced(twin, reduced, prefix=1, output_form="tensor", reduce=keep_all)
            found = twin(x, **arguments) - x
        except torch.OutOfMemoryError:
            raise
        except (AttributeError, RuntimeError, TypeError) as error:
            raise TypeError(f"{what}: {error}") from error
    # spoiled weights, and values too large for float16, leave nothing to compare
    known = expected.isfinite()
    difference, largest = (
        float(torch.where(known, x, 0).abs().max()) for x in (found - expected, expected)
    )
    if not difference <= largest * (1e-3 if weight.dtype == torch.float32 else 0.1):
        raise TypeError(
            f"{what}: opened, it differs by {difference:.2g}, its largest value is {largest:.2g}"
        )
