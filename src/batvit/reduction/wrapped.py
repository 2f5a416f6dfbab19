"""What wrappers make of a block or a model: a class made from its class, or a module around it."""

from inspect import getattr_static, unwrap
from typing import Any

from torch import Tensor, nn

# by (class, base, other base), in both directions, so that a class that is made twice is the same
_REMADE: dict[tuple[type, type, type], type] = {}


def is_made_from(kind: type, own: type) -> bool:
    """Whether a class is ``own``, or was made from it and computes the same.

    So do ``fully_shard`` and ``parametrize``: they derive a class and replace none of its methods.
    A class that replaces one, or that calls ``super()`` in one, was written by hand.
    """
    if kind is own:
        return True
    if not issubclass(kind, own):
        return False
    derived = [base for base in kind.__mro__ if issubclass(base, own) and base is not own]
    if any(_calls_super(base) for base in derived):
        return False
    methods = {name for base in own.__mro__ if base not in nn.Module.__mro__ for name in vars(base)}
    for name in methods:
        is_special = name.startswith("__")
        if not is_special and _method(kind, name) is not _method(own, name):
            return False
    return True


def is_reducible(kind: type, reduced: Any) -> bool:
    """Whether a class is a reduced one or its library's own, or was made from one of them."""
    return is_made_from(kind, reduced) or is_made_from(kind, reduced.own_class())


def remade(kind: type, base: type, other: type) -> type:
    """Return the class that a wrapper would have made from ``other`` where it made ``kind``.

    Args:
        kind: ``base``, or a class for which :func:`is_made_from` holds.
        base: the class that it was made from.
        other: the class to make it from.
    """
    if kind is base:
        return other
    if not issubclass(kind, base):
        return kind
    made: type | None = _REMADE.get((kind, base, other))
    if made is None:
        bases = tuple(remade(parent, base, other) for parent in kind.__bases__)
        # a method around that of the base is made by the base for every class
        body = {
            key: value
            for key, value in vars(kind).items()
            if key not in _OF_EACH_CLASS and not _is_around(value, base, key)
        }
        name = kind.__name__.replace(base.__name__, other.__name__)
        metaclass: Any = type(kind)
        made = metaclass(name, bases, body)
        _REMADE[kind, base, other] = made
        _REMADE[made, other, base] = kind
    return made


_OF_EACH_CLASS = ("__dict__", "__weakref__")


def own_class(kind: type, reduced: type) -> type[nn.Module]:
    """Return the library's class behind a reduced one: the first module that is not reduced."""
    for base in kind.__mro__:
        if issubclass(base, nn.Module) and not issubclass(base, reduced):
            return base
    raise AssertionError(f"{kind} is no module")


def reduced_class(kind: type, reduced: type) -> Any:
    """Return the class that joined the library's class to a reduced one."""
    own = own_class(kind, reduced)
    for base in kind.__mro__:
        if own in base.__bases__ and issubclass(base, reduced):
            return base
    raise AssertionError(f"{kind} is not reduced")


def unwrapped(module: nn.Module) -> nn.Module:
    """Return the module inside wrappers: ``checkpoint_wrapper``, ``torch.compile``, FSDP.

    A wrapper holds one module, no weights, and passes on what it does not know itself.
    """
    while _is_wrapper(module):
        (module,) = module.children()
    return module


def is_sharded(weight: Tensor) -> bool:
    """Whether a tensor is a DTensor, of which a process holds a part."""
    # without that class there is none: importing it takes time
    return hasattr(weight, "placements")


def refuse_split_attention(attention: nn.Module) -> None:
    """Refuse an attention of which every process has some heads: each would choose other tokens.

    Raises:
        TypeError: if a weight of it is split. What FSDP2 splits is whole while it runs.
    """
    if hasattr(attention, "reshard"):
        return
    for part in (attention, *attention.children()):
        if hasattr(part, "reshard"):
            continue
        for weight in part._parameters.values():
            if weight is not None and is_sharded(weight) and not _is_whole(weight):
                raise TypeError(SPLIT_ATTENTION)


SPLIT_ATTENTION = (
    "the heads of an attention at a site are split between processes, and each would choose other "
    "tokens; leave the attention of blocks that reduce out of the plan of parallelize_module, or "
    "batvit.unpatch the model"
)


def _is_whole(weight: Any) -> bool:
    return all(placement.is_replicate() for placement in weight.placements)


def _method(kind: type, name: str) -> Any:
    """Return what a class has by a name, without what decorators put around it."""
    return unwrap(getattr_static(kind, name, None))


def _is_around(value: Any, base: type, name: str) -> bool:
    return hasattr(value, "__wrapped__") and unwrap(value) is _method(base, name)


def _calls_super(kind: type) -> bool:
    """Whether a function in the body of a class belongs to that very class."""
    for value in vars(kind).values():
        code = getattr(value, "__code__", None)
        if code is not None and "__class__" in code.co_freevars:
            return True
    return False


def _is_wrapper(module: nn.Module) -> bool:
    if len(module._modules) != 1 or module._parameters or module._buffers:
        return False
    # nn.Sequential and nn.ModuleList of one hold parts, they wrap nothing
    return type(module).__getattr__ is not nn.Module.__getattr__
