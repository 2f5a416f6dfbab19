"""Copies of a module that run without firing the hooks of its user.

Only what makes a module is copied: modules, what they keep in lists and dictionaries, the
configurations of transformers. Weights are as the copy is asked for, all else is shared: what
cannot be copied, such as a lock or an open file, does not matter.
"""

import copy
from collections.abc import Callable
from functools import partial
from types import MethodType
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

Module = TypeVar("Module", bound=nn.Module)
Hook = TypeVar("Hook", bound=Callable[..., Any])

OF_THE_MODEL = "_batvit_of_the_model"
# whose hooks make the weights of pruned and weight-normed modules, or the outputs of models
OWN_HOOKS = ("transformers.", "torch.nn.utils.")
USER_HOOKS = ("_forward_hooks", "_forward_pre_hooks")


def of_the_model(hook: Hook) -> Hook:
    """Mark a hook without which a model does not work, so that copies keep it."""
    setattr(hook, OF_THE_MODEL, True)
    return hook


def quiet_copy(module: Module) -> Module:
    """Return a copy in eval mode on which no hook of the user's fires, with its own weights."""
    return copy_with(module, _own_weight)


def light_copy(module: Module) -> Module:
    """Return a quiet copy that shares the weights.

    Its blocks may be changed without touching those of the module, and no weight is held twice.
    """
    return copy_with(module, _same_weight)


def on_meta(module: Module) -> Module:
    """Return a quiet copy whose weights have shapes but no values; no weight is copied for it."""
    return copy_with(module, _weight_on_meta)


def copy_with(module: Module, weight: Callable[[Tensor], Tensor]) -> Module:
    """Return a copy in eval mode on which no hook of the user's fires.

    Args:
        module: any.
        weight: gives what stands in the copy for a tensor of the module: a parameter, a buffer, or
            one that a hook has made of them. It is asked once for each.
    """
    twin: Module = _Copier(weight).copied(module)
    twin.eval()
    for part in twin.modules():
        for hooks in USER_HOOKS:
            _remove_user_hooks(vars(part)[hooks])
    return twin


class _Copier:
    """One copy under way."""

    def __init__(self, weight: Callable[[Tensor], Tensor]) -> None:
        self.weight = weight
        # what was copied, by its id, as copy.deepcopy takes it; the originals outlive it
        self.memo: dict[int, Any] = {}

    def copied(self, value: Any) -> Any:
        """Return what stands for a value in the copy: the value itself, as a rule."""
        if id(value) in self.memo:
            return self.memo[id(value)]
        if isinstance(value, nn.Module):
            return self._module(value)
        if isinstance(value, Tensor):
            twin: Any = self.weight(value)
        elif isinstance(value, dict | list | tuple | set):
            return self._container(value)
        elif isinstance(value, MethodType):
            twin = MethodType(value.__func__, self.copied(value.__self__))
        elif isinstance(value, partial):
            twin = partial(
                self.copied(value.func), *self.copied(value.args), **self.copied(value.keywords)
            )
        elif _defined_in(type(value), ("transformers.",)):
            # patch writes the reduction into the configuration, which several modules may share
            twin = copy.deepcopy(value, self.memo)
        else:
            return value
        self.memo[id(value)] = twin
        return twin

    def _module(self, module: nn.Module) -> nn.Module:
        # neither by its constructor nor by the methods of pickle, which wrappers forbid
        twin = object.__new__(type(module))
        self.memo[id(module)] = twin
        is_compiled = "_orig_mod" in module._modules
        state = module.__getstate__() if is_compiled else dict(vars(module))
        # what was compiled runs the original
        state.pop("_compiled_call_impl", None)
        for name, value in state.items():
            # hooks may be bound to anything
            is_of_hooks = name.endswith("_hooks")
            state[name] = copy.copy(value) if is_of_hooks else self.copied(value)
        if is_compiled:
            twin.__setstate__(state)
        else:
            vars(twin).update(state)
        return twin

    def _container(self, value: Any) -> Any:
        if isinstance(value, tuple):
            copied = [self.copied(item) for item in value]
            if all(twin is item for twin, item in zip(copied, value, strict=True)):
                return value
            return type(value)(*copied) if hasattr(value, "_fields") else type(value)(copied)
        twin = copy.copy(value)
        self.memo[id(value)] = twin
        if isinstance(value, dict):
            for key, item in value.items():
                dict.__setitem__(twin, key, self.copied(item))
        elif isinstance(value, list):
            list.__setitem__(twin, slice(None), [self.copied(item) for item in value])
        return twin


def _same_weight(weight: Tensor) -> Tensor:
    return weight


def _own_weight(weight: Tensor) -> Tensor:
    # what a hook has made of weights, torch does not copy
    return copy.deepcopy(weight) if weight.is_leaf else weight.detach().clone()


def _weight_on_meta(weight: Tensor) -> Tensor:
    if hasattr(weight, "placements"):
        # of a DTensor the whole shape, without its processes
        shadow = torch.empty(weight.shape, dtype=weight.dtype, device="meta")
    else:
        shadow = weight.detach().to("meta")
    return nn.Parameter(shadow, requires_grad=False) if _is_parameter(weight) else shadow


def _is_parameter(weight: Tensor) -> bool:
    return isinstance(weight, nn.Parameter)


def _remove_user_hooks(hooks: dict[int, Callable[..., Any]]) -> None:
    for key, hook in list(hooks.items()):
        if not _belongs_to_the_model(hook):
            del hooks[key]


def _belongs_to_the_model(hook: object) -> bool:
    """Whether a library registered the hook on its own model, which may not work without it."""
    if hasattr(hook, OF_THE_MODEL):
        return True
    defined_in = str(getattr(hook, "__module__", ""))
    return defined_in.startswith(OWN_HOOKS) or _defined_in(type(hook), OWN_HOOKS)


def _defined_in(kind: type, modules: tuple[str, ...]) -> bool:
    """Whether a class derives from one of a library."""
    return any(base.__module__.startswith(modules) for base in kind.__mro__)
