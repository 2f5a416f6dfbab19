"""Hearing what an attention module makes while it runs as it is."""

from typing import Any

from torch import Tensor, nn


class AttentionCapture:
    """Stands in for an attention module during one call, to hear the queries and keys that it makes.

    The module's own ``forward`` runs with this object as ``self``; what a subclass defines is captured, everything else is the
    module's, its hooks included.
    """

    queries: Tensor
    keys: Tensor

    def __init__(self, attention: Any) -> None:
        self.attention = attention

    def __getattr__(self, name: str) -> Any:
        return getattr(self.attention, name)

    def forward(self, *args: Any, **arguments: Any) -> Any:
        """The module's own."""
        return type(self.attention).forward(self, *args, **arguments)

    def __call__(self, *args: Any, **arguments: Any) -> Any:
        """As the module is called: with its hooks, if it has any."""
        attention = self.attention
        if attention._forward_hooks or attention._forward_pre_hooks:
            return nn.Module._call_impl(self, *args, **arguments)  # type: ignore[arg-type]
        return self.forward(*args, **arguments)
