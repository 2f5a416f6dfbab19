"""What training knows of a reduction: an object that a model may carry, whatever the method behind it."""

from pathlib import Path
from typing import Any, Protocol

from torch import nn


class Reduction(Protocol):
    """How much of its reduction a model has can be set; 0 is the dense model, 1 the whole reduction."""

    def set_share(self, model: nn.Module, share: float) -> None:
        """Put a share of the reduction into a model, in [0, 1]."""

    def describe(self) -> dict[str, Any]:
        """Return the whole reduction in plain values, ready for JSON."""

    def defaults(self) -> dict[str, Any]:
        """Return every value of :meth:`describe` as it is by default."""

    def save_beside(self, weights: Path) -> None:
        """Write the reduction beside a file of weights."""

    def dense_copy(self, model: nn.Module) -> nn.Module:
        """Return a copy of a model without its reduction."""


def reduction_of(model: nn.Module) -> Reduction | None:
    """Return the reduction that a model carries: the attribute ``during_training`` of any of its modules."""
    for module in model.modules():
        found: Reduction | None = getattr(module, "during_training", None)
        if found is not None:
            return found
    return None
