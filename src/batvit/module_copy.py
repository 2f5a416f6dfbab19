"""Copies of a module that run without firing the hooks of its user."""

import copy
from collections.abc import Callable
from typing import Any, TypeVar

from torch import nn

Module = TypeVar("Module", bound=nn.Module)
Hook = TypeVar("Hook", bound=Callable[..., Any])

OF_THE_MODEL = "_batvit_of_the_model"


def of_the_model(hook: Hook) -> Hook:
    """Mark a hook without which a model does not work, so that copies keep it."""
    setattr(hook, OF_THE_MODEL, True)
    return hook


def quiet_copy(module: Module, memo: dict[int, object] | None = None) -> Module:
    """Return a deep copy in eval mode on which no hook of the user's fires.

    Args:
        module: any.
        memo: of :func:`copy.deepcopy`: what is not to be copied, by its id.
    """
    twin = copy.deepcopy(module, {} if memo is None else memo).eval()
    for part in twin.modules():
        _remove_user_hooks(part._forward_hooks)
        _remove_user_hooks(part._forward_pre_hooks)
    return twin


def light_copy(module: Module) -> Module:
    """Return a quiet copy that shares the weights.

    Its blocks may be changed without touching those of the module, and no weight is held twice.
    """
    memo: dict[int, object] = {}
    for weight in (*module.parameters(), *module.buffers()):
        memo[id(weight)] = weight
    return quiet_copy(module, memo)


def on_meta(module: nn.Module) -> nn.Module:
    """Return a quiet copy whose weights have shapes but no values; no weight is copied for it."""
    memo: dict[int, object] = {}
    for buffer in module.buffers():
        memo[id(buffer)] = buffer.to("meta")
    for parameter in module.parameters():
        memo[id(parameter)] = nn.Parameter(parameter.to("meta"), requires_grad=False)
    return quiet_copy(module, memo)


def _remove_user_hooks(hooks: dict[int, Callable[..., Any]]) -> None:
    for key, hook in list(hooks.items()):
        if not _belongs_to_the_model(hook):
            del hooks[key]


def _belongs_to_the_model(hook: object) -> bool:
    """Whether a library registered the hook on its own model, which may not work without it."""
    if hasattr(hook, OF_THE_MODEL):
        return True
    defined_in = str(getattr(hook, "__module__", ""))
    return defined_in.startswith("transformers.")
