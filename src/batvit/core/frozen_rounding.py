"""Whether products of float32 are rounded, as a constant of a compiled graph."""

import torch

from batvit.core.rounding import rounds_products


# torch compiles anew when set_float32_matmul_precision changes
@torch.compiler.assume_constant_result  # type: ignore[untyped-decorator]
def frozen_rounding(device: str) -> bool:
    """Return what :func:`rounds_products` says while the graph is made."""
    return rounds_products(device)
