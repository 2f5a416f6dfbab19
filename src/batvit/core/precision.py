"""Distances and sums need float32, also where autocast would shorten them."""

from contextlib import AbstractContextManager, nullcontext

import torch
from jaxtyping import Float
from torch import Tensor


def full_precision(x: Tensor) -> AbstractContextManager[object]:
    """Return a context in which matrix products keep the type of their inputs."""
    if x.is_meta or not torch.is_autocast_enabled(x.device.type):
        return nullcontext()
    return torch.autocast(x.device.type, enabled=False)


def products(
    a: Float[Tensor, "batch first channels"], b: Float[Tensor, "batch second channels"]
) -> Float[Tensor, "batch first second"]:
    """Return the scalar product of each token of a with each of b, in float32.

    bfloat16 is multiplied as it is, added up in float32 and rounded once: the matrix units of a CPU
    or GPU take it many times faster. So a product is off by up to 1/512 of itself, which is much
    where products almost cancel. float16 would overflow.
    """
    if a.dtype != torch.bfloat16:
        a = a.float()
        b = b.float()
    with full_precision(a):
        return (a @ b.transpose(1, 2)).float()
