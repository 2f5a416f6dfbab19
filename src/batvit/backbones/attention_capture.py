"""Capture the queries and keys of an attention module that runs as it is."""

from collections.abc import Callable
from functools import partial
from types import MethodType
from typing import Any, ClassVar

from torch import Tensor, nn

HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")


class AttentionCapture:
    """Stands in for an attention module during one call, and keeps the queries and keys it makes.

    The module's own ``forward`` runs with this object as ``self``, and so does what another library
    put around it, if it lets itself be bound anew (accelerate does). A subclass overrides what
    ``forward`` hands them to, and sets ``queries`` and ``keys`` there; all else is the module's,
    its hooks included, which are given the module. What ``forward`` sets on itself is set there.
    """

    own: ClassVar[frozenset[str]] = frozenset({"module", "queries", "keys"})
    """the attributes that are this object's own"""

    queries: Tensor
    """(B, heads, tokens, width)"""
    keys: Tensor
    """(B, heads, tokens, width)"""

    def __init__(self, module: Any) -> None:
        self.module = module

    def __setattr__(self, name: str, value: Any) -> None:
        if name in self.own:
            super().__setattr__(name, value)
        else:
            setattr(self.module, name, value)

    def __getattr__(self, name: str) -> Any:
        found = getattr(self.module, name)
        if name in HOOKS:
            return {key: partial(_with, self.module, hook) for key, hook in found.items()}
        if isinstance(found, MethodType) and found.__self__ is self.module:
            return MethodType(found.__func__, self)
        return found

    def forward(self, *args: Any, **arguments: Any) -> Any:
        """Run the module's own forward, or the one that it was given instead.

        Raises:
            ValueError: if that cannot run with this object as ``self``: then nothing is captured.
        """
        module = self.module
        given = vars(module).get("forward")
        if given is None:
            return type(module).forward(self, *args, **arguments)
        if isinstance(given, MethodType) and given.__self__ is module:
            return given.__func__(self, *args, **arguments)
        if isinstance(given, partial) and given.args[:1] == (module,):
            bound = partial(given.func, self, *given.args[1:], **given.keywords)
            return bound(*args, **arguments)
        raise ValueError(
            f"the forward of a {type(module).__name__} was replaced by one in which batvit "
            "cannot hear queries and keys; replace it by a method of the module "
            "(types.MethodType), listen by forward hooks, or batvit.unpatch the model"
        )

    def _slow_forward(self, *args: Any, **arguments: Any) -> Any:
        """Do as forward: torch calls this in its place while it traces a module that has hooks."""
        return self.forward(*args, **arguments)

    def __call__(self, *args: Any, **arguments: Any) -> Any:
        """Call it as the module is called, with its hooks."""
        return nn.Module._call_impl(self, *args, **arguments)  # type: ignore[arg-type]


def _with(module: nn.Module, hook: Callable[..., Any], _: Any, *args: Any, **arguments: Any) -> Any:
    """Call a hook with a module instead of what stands in for it."""
    return hook(module, *args, **arguments)
