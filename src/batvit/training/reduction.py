"""What training knows of a reduction: an object that a model carries, whatever the method is."""

from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from torch import nn


@runtime_checkable
class Reduction(Protocol):
    """A reduction whose share can be set: 0 is the dense model, 1 the whole reduction."""

    def set_share(self, model: nn.Module, share: float) -> None:
        """Put a share of the reduction into a model.

        Args:
            model: changed in place.
            share: in [0, 1].
        """

    def describe(self) -> dict[str, Any]:
        """Return the whole reduction in plain values, ready for JSON."""

    def defaults(self) -> dict[str, Any]:
        """Return every value of :meth:`describe` as it is by default."""

    def save_beside(self, weights: Path) -> None:
        """Write the reduction beside a file of weights."""

    def dense_copy(self, model: nn.Module) -> nn.Module:
        """Return a copy of a model without its reduction."""


def reduction_of(model: nn.Module) -> Reduction | None:
    """Return the reduction that a model carries, or None.

    It is the attribute ``during_training`` of any of the model's modules.
    """
    for module in model.modules():
        reduction: Reduction | None = getattr(module, "during_training", None)
        if reduction is not None:
            return reduction
    return None
