"""Copies of modules that can be run without anyone hearing it."""

import copy
from typing import TypeVar

from torch import nn

Module = TypeVar("Module", bound=nn.Module)


def quiet_copy(module: Module, memo: dict[int, object] | None = None) -> Module:
    """A deep copy in eval mode on which no hook of the user's fires."""
    twin = copy.deepcopy(module, {} if memo is None else memo).eval()
    for part in twin.modules():
        for hooks in (part._forward_hooks, part._forward_pre_hooks):
            for key in [key for key, hook in hooks.items() if not _of_a_library(hook)]:
                del hooks[key]
    return twin


def light_copy(module: Module) -> Module:
    """A quiet copy that shares the weights of the original: whatever is done to its blocks, no weight is held twice."""
    memo: dict[int, object] = {id(held): held for held in (*module.parameters(), *module.buffers())}
    return quiet_copy(module, memo)


def on_meta(module: nn.Module) -> nn.Module:
    """A quiet copy whose weights have shapes but no values, made without copying the weights."""
    memo: dict[int, object] = {id(b): b.to("meta") for b in module.buffers()}
    memo |= {id(p): nn.Parameter(p.to("meta"), requires_grad=False) for p in module.parameters()}
    return quiet_copy(module, memo)


def _of_a_library(hook: object) -> bool:
    """Whether a library hung the hook on its own model, which may not work without it."""
    return str(getattr(hook, "__module__", "")).startswith(("batvit.backbones.", "transformers."))
