"""Prove, before anything is patched, that an opened block computes what the block did."""

import sys
from typing import Any

import torch
from torch import Tensor, nn

from batvit.config import BATConfig
from batvit.module_copy import copy_with
from batvit.reduction.block import ReducedBlock, become_dense, become_reduced, features_of
from batvit.reduction.site import Reduce
from batvit.reduction.wrapped import is_sharded

TRIAL_TOKENS = 12
TOLERANCE = 1e-3
LOW_PRECISION_TOLERANCE = 0.1


def prove(block: nn.Module, reduced: type[ReducedBlock], i: int, width: int) -> None:
    """Refuse a block that computes something else once it is opened.

    Its forward is then not the one that batvit was written for. Weights without values (meta), or
    that leave nothing finite, prove nothing, and pass.

    Args:
        block: left alone.
        reduced: the class that it would become.
        i: which block of the model it is, from 0.
        width: channels of a token.

    Raises:
        TypeError: naming the class and the difference.
    """
    weight = _typical_weight(block)
    if weight.is_meta:
        return
    # tokens that differ in direction, not by a constant that the norm would take away
    draw = torch.Generator().manual_seed(0)
    x = torch.randn(1, TRIAL_TOKENS, width, generator=draw, device="cpu")
    x = x.to(weight.device, weight.dtype)
    twin: Any = copy_with(block, _trial_weight)
    if isinstance(twin, ReducedBlock):
        become_dense(twin)
    arguments = reduced.trial(twin, x)
    config = BATConfig(keep_rate=1.0, blocks=(i,))
    keep_all = Reduce(config, i, depth=i + 1, prefix=1, class_token=True)
    problem = _problem(reduced.own_class())
    with torch.no_grad():
        try:
            dense = features_of(twin(x, **arguments)) - x
            become_reduced(twin, reduced, prefix=1, output_form="tensor", reduce=keep_all)
            opened = features_of(twin(x, **arguments)) - x
        except torch.OutOfMemoryError:
            raise
        except (AttributeError, RuntimeError, TypeError) as error:
            raise TypeError(f"{problem}: {error}") from error
    # spoiled weights, and values too large for float16, leave nothing to compare
    finite = dense.isfinite()
    difference = _largest(opened - dense, finite)
    largest = _largest(dense, finite)
    tolerance = TOLERANCE if weight.dtype == torch.float32 else LOW_PRECISION_TOLERANCE
    # a difference that is not a number is refused, too
    if not difference <= largest * tolerance:
        raise TypeError(
            f"{problem}: opened, it differs by {difference:.2g}, its largest value is {largest:.2g}"
        )


def _typical_weight(block: nn.Module) -> Tensor:
    """Return a weight that says where and in which type a block computes: a matrix if it can be."""
    # of quantised blocks the norms still say what is computed in
    weights = [w for w in block.parameters() if w.is_floating_point() and w.itemsize > 1]
    for weight in weights:
        if weight.dim() > 1:
            return weight
    return weights[0] if weights else torch.empty(0)


def _trial_weight(weight: Tensor) -> Tensor:
    """Return the weight itself; random values of its whole shape where a process holds a part."""
    if not is_sharded(weight):
        return weight
    draw = torch.Generator().manual_seed(weight.numel())
    values = torch.randn(weight.shape, generator=draw, device="cpu") / weight.shape[-1] ** 0.5
    values = values.to(weight.device, weight.dtype)
    return nn.Parameter(values) if isinstance(weight, nn.Parameter) else values


def _problem(own: type[nn.Module]) -> str:
    library = own.__module__.partition(".")[0]
    version = getattr(sys.modules[library], "__version__", "of unknown version")
    return f"{own.__qualname__} of {library} {version} does not compute what batvit was written for"


def _largest(x: Tensor, finite: Tensor) -> float:
    return float(torch.where(finite, x, 0).abs().max())
