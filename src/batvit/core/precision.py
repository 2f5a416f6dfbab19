"""Distances and sums need float32, also where autocast would shorten them."""

from contextlib import AbstractContextManager, nullcontext
from typing import Any

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


def rows_of(
    shares: Float[Tensor, "batch groups tokens"], x: Float[Tensor, "batch tokens channels"]
) -> Float[Tensor, "batch groups channels"]:
    """Return shares @ x; a row of shares that is one 1 gives its row of x bit for bit.

    Also where products of float32 are rounded (TF32, bfloat16): x is then the sum of three parts
    that fit into bfloat16, as its 24 bits are three times 8.
    """
    with full_precision(x):
        if x.dtype != torch.float32 or not rounds_products(x.device.type):
            return shares @ x
        high = x.bfloat16().float()
        rest = x - high
        middle = rest.bfloat16().float()
        return shares @ high + shares @ middle + shares @ (rest - middle)


# a graph is compiled anew when the setting changes
@torch.compiler.assume_constant_result  # type: ignore[untyped-decorator]
def rounds_products(device: str) -> bool:
    """Whether torch was told to round the factors of products of float32 on a type of device."""
    library: Any = torch.backends.cuda if device == "cuda" else torch.backends.mkldnn
    precision = getattr(getattr(library, "matmul", None), "fp32_precision", None)
    if precision is None:
        # before torch 2.9
        return torch.get_float32_matmul_precision() != "highest"
    return precision not in ("ieee", "none")
