"""Whether products of float32 are rounded, as torch was told."""

from typing import Any

import torch


def rounds_products(device: str) -> bool:
    """Whether torch was told to round the factors of products of float32 on a type of device."""
    library: Any = torch.backends.cuda if device == "cuda" else torch.backends.mkldnn
    return library.matmul.fp32_precision not in ("ieee", "none")
