"""Copies of modules that can be run without anyone hearing it."""

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
        for hooks in (part._forward_hooks, part._forward_pre_hooks):
            for key, hook in list(hooks.items()):
                if not _belongs_to_the_model(hook):
                    del hooks[key]
    return twin


def light_copy(module: Module) -> Module:
    """Return a quiet copy that shares the weights: whatever is done to its blocks, no weight is held twice."""
    memo: dict[int, object] = {}
    for held in (*module.parameters(), *module.buffers()):
        memo[id(held)] = held
    return quiet_copy(module, memo)


def on_meta(module: nn.Module) -> nn.Module:
    """Return a quiet copy whose weights have shapes but no values, made without copying the weights."""
    memo: dict[int, object] = {}
    for buffer in module.buffers():
        memo[id(buffer)] = buffer.to("meta")
    for parameter in module.parameters():
        memo[id(parameter)] = nn.Parameter(parameter.to("meta"), requires_grad=False)
    return quiet_copy(module, memo)


def _belongs_to_the_model(hook: object) -> bool:
    """Whether a library hung the hook on its own model, which may not work without it."""
    return hasattr(hook, OF_THE_MODEL) or str(getattr(hook, "__module__", "")).startswith(
        "transformers."
    )
