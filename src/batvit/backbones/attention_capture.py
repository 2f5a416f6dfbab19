"""Capture the queries and keys of an attention module that runs as it is."""

from typing import Any

from torch import Tensor, nn


class AttentionCapture:
    """Stands in for an attention module during one call, and keeps the queries and keys it makes.

    The module's own ``forward`` runs with this object as ``self``. A subclass overrides what
    ``forward`` hands them to, and sets ``queries`` and ``keys`` there; all else is the module's,
    its hooks included.
    """

    queries: Tensor
    """(B, heads, tokens, width)"""
    keys: Tensor
    """(B, heads, tokens, width)"""

    def __init__(self, attention: Any) -> None:
        self.attention = attention

    def __getattr__(self, name: str) -> Any:
        return getattr(self.attention, name)

    def forward(self, *args: Any, **arguments: Any) -> Any:
        """Run the module's own forward."""
        return type(self.attention).forward(self, *args, **arguments)

    def _slow_forward(self, *args: Any, **arguments: Any) -> Any:
        """Do as forward: torch calls this in its place while it traces a module that has hooks."""
        return self.forward(*args, **arguments)

    def __call__(self, *args: Any, **arguments: Any) -> Any:
        """Call it as the module is called: with its hooks, if it has any."""
        attention = self.attention
        if attention._forward_hooks or attention._forward_pre_hooks:
            return nn.Module._call_impl(self, *args, **arguments)  # type: ignore[arg-type]
        return self.forward(*args, **arguments)
