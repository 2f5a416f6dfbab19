"""Distances and sums need float32, also where autocast would shorten them."""

from contextlib import AbstractContextManager, nullcontext

import torch
from jaxtyping import Float
from torch import Tensor

from batvit.core.rounding import rounds_products


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


def rows_of(
    shares: Float[Tensor, "batch groups tokens"], x: Float[Tensor, "batch tokens channels"]
) -> Float[Tensor, "batch groups channels"]:
    """Return shares @ x; a row of shares that is one 1 gives its row of x bit for bit.

    Also where products of float32 are rounded (TF32, bfloat16): x is then the sum of three parts
    that fit into bfloat16, as its 24 bits are three times 8.
    """
    with full_precision(x):
        if not _is_rounded(x):
            return shares @ x
        high = x.bfloat16().float()
        rest = x - high
        middle = rest.bfloat16().float()
        return shares @ high + shares @ middle + shares @ (rest - middle)


def _is_rounded(x: Tensor) -> bool:
    """Whether the factor x of a product is rounded before."""
    if x.dtype != torch.float32:
        return False
    if not torch.compiler.is_compiling():
        return rounds_products(x.device.type)
    # it loads torch's compiler, for which importing this library need not wait
    from batvit.core.frozen_rounding import frozen_rounding

    rounded: bool = frozen_rounding(x.device.type)
    return rounded
