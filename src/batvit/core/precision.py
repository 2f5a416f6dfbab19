"""Distances and sums need float32, also where autocast would shorten them."""

from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor


def full_precision(x: Tensor) -> AbstractContextManager[object]:
    """A context in which matrix products keep the type of their inputs."""
    return nullcontext() if x.is_meta else torch.autocast(x.device.type, enabled=False)
