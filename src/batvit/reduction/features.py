"""What reduced tokens are to other people's tools: a tensor that knows that it is no grid.

Weighed: were what goes from block to block itself a subclass of Tensor, every block would pay for
wrapping and unwrapping, graphs would break on it, and autograd would copy it without what it
carries. So blocks hand on a value, which answers torch's functions as its tensor does
(:class:`AnswersAsTensor`). Only where somebody listens does a block give a subclass of Tensor
(:class:`ReducedFeatures`): tools ask ``isinstance``. Both give such features again as results, as
long as they have a row a group: so what was laid out as a picture is refused, and a hook may give
changed features back to the model.
"""

from functools import partial
from itertools import accumulate, pairwise
from math import prod
from operator import mul
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.module import _global_forward_hooks
from torch.utils._pytree import tree_map

from batvit.core import Assignment

LAYS_OUT = (
    Tensor.reshape,
    torch.reshape,
    Tensor.view,
    Tensor.unflatten,
    torch.unflatten,
    Tensor.reshape_as,
    Tensor.view_as,
)
NO_GRID = (
    "{} groups of merged patches cannot be laid out as a picture; take the model's "
    "forward_intermediates, or .grid() of what the block gave, or batvit.unpatch the model"
)
PREFIX_ONLY = (
    "there is no token of a patch here: with prefix_only=True the last block gives prefix tokens "
    "alone; batvit.patch the model with prefix_only=False, or take its forward_intermediates"
)
OPERATORS = (
    *("__add__", "__radd__", "__sub__", "__rsub__", "__mul__", "__rmul__", "__truediv__"),
    *("__rtruediv__", "__floordiv__", "__mod__", "__pow__", "__rpow__", "__matmul__"),
    *("__rmatmul__", "__neg__", "__abs__", "__eq__", "__ne__", "__lt__", "__le__", "__gt__"),
    *("__ge__", "__invert__", "__getitem__", "__setitem__", "__len__", "__iter__", "__bool__"),
    *("__float__", "__array__", "__format__"),
)
IN_PLACE = ("__iadd__", "__isub__", "__imul__", "__itruediv__")


class AnswersAsTensor:
    """A value with a tensor ``x``: torch's functions, operators and attributes are those of x."""

    __hash__ = object.__hash__

    def refuse_lost_gradients(self) -> None:
        """Refuse to answer where the tensor has lost its gradients, with ValueError."""

    @classmethod
    def __torch_function__(
        cls, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        return _answer(func, args, kwargs or {})

    def __getattr__(self, name: str) -> Any:
        if name == "x" or name.startswith("__"):
            raise AttributeError(f"{type(self).__name__} has no {name}")
        own = getattr(Tensor, name, None)
        if callable(own):
            return partial(self._call, own)
        return _answer(getattr, (self, name), {})

    def _call(self, own: Any, *args: Any, **arguments: Any) -> Any:
        return _answer(own, (self, *args), arguments)


def _operator(name: str) -> Any:
    own = getattr(Tensor, name)
    return lambda self, *args: _answer(own, (self, *args), {})


def _in_place(name: str) -> Any:
    own = getattr(Tensor, name)

    def change(self: Any, other: Any) -> Any:
        _answer(own, (self, other), {})
        return self

    return change


for _name in OPERATORS:
    setattr(AnswersAsTensor, _name, _operator(_name))
for _name in IN_PLACE:
    setattr(AnswersAsTensor, _name, _in_place(_name))


class ReducedFeatures(Tensor):
    """Features of reduced tokens, or what was computed of them while it has a row a group."""

    tokens: Any
    """the tokens that a block gave"""
    untouched: bool
    """whether these are their very features"""

    @classmethod
    def given(cls, tokens: Any) -> "ReducedFeatures":
        """Return the features of tokens, to those who listen.

        What goes on is computed of them, so that their gradient can be heard, too.
        """
        features: Any = tokens.x.as_subclass(cls)
        with torch._C.DisableTorchFunctionSubclass():
            features.tokens = tokens.with_features(features.as_subclass(Tensor))
        features.untouched = True
        return features  # type: ignore[no-any-return]

    @classmethod
    def __torch_function__(
        cls, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        return _answer(func, args, kwargs or {})

    def restored(self) -> Any:
        """Return the tokens, with these features.

        Raises:
            ValueError: if there is not a row for each of them.
        """
        if self.untouched:
            return self.tokens
        with torch._C.DisableTorchFunctionSubclass():
            shape = tuple(self.shape)
            wanted = tuple(self.tokens.x.shape)
            if shape != wanted:
                raise ValueError(
                    f"a reduced block takes the {wanted} features that the block before it gave, "
                    f"got {shape}; give back features of the same shape, "
                    "or batvit.unpatch the model"
                )
            return self.tokens.with_features(self.as_subclass(Tensor))

    @property
    def x(self) -> Tensor:
        """As of tokens: the features as a plain tensor."""
        x: Tensor = self.restored().x
        return x

    @property
    def sizes(self) -> Tensor:
        """As of tokens: how many patches each group holds."""
        sizes: Tensor = self.tokens.sizes
        return sizes

    @property
    def origin(self) -> Assignment:
        """As of tokens: which group each patch is in."""
        origin: Assignment = self.tokens.origin
        return origin

    def grid(self) -> Tensor:
        """Return prefix tokens and one token a patch: each gets the feature of its group back."""
        grid: Tensor = self.restored().grid()
        return grid

    def __reduce_ex__(self, protocol: Any) -> Any:
        # a file of features holds a tensor, and is read without this library
        with torch._C.DisableTorchFunctionSubclass():
            return self.as_subclass(Tensor).__reduce_ex__(protocol)

    def __deepcopy__(self, memo: Any) -> Any:
        with torch._C.DisableTorchFunctionSubclass():
            return self.as_subclass(Tensor).__deepcopy__(memo)


def has_listeners(module: nn.Module) -> bool:
    """Whether forward hooks hear what a module gives. In a graph nobody listens."""
    listening = bool(module._forward_hooks or _global_forward_hooks)
    return listening and not torch.compiler.is_compiling()


def _answer(func: Any, args: tuple[Any, ...], arguments: dict[str, Any]) -> Any:
    """Return what a function gives of the tensors behind tokens and features."""
    sources: list[Any] = []
    own = tree_map(partial(_tensor_of, sources), (args, arguments), is_leaf=_is_source)
    # those of the first: whatever else there is must fit them
    tokens = sources[0]
    groups = tokens.sizes.shape[1]
    with torch._C.DisableTorchFunctionSubclass():
        try:
            result = func(*own[0], **own[1])
        except RuntimeError as error:
            if func in LAYS_OUT and groups:
                raise ValueError(NO_GRID.format(groups)) from error
            raise
        if func in LAYS_OUT and _splits(own[0][0].shape, result.shape, groups, tokens.x.shape[1]):
            raise ValueError(NO_GRID.format(groups))
        if type(result) in (tuple, list):
            return type(result)(_marked(part, tokens) for part in result)
        return _marked(result, tokens)


def _is_source(value: Any) -> bool:
    return isinstance(value, AnswersAsTensor | ReducedFeatures)


def _tensor_of(sources: list[Any], value: Any) -> Any:
    if isinstance(value, AnswersAsTensor):
        value.refuse_lost_gradients()
        sources.append(value)
        return value.x
    if isinstance(value, ReducedFeatures):
        sources.append(value.tokens)
    return value


def _splits(before: torch.Size, after: torch.Size, groups: int, tokens: int) -> bool:
    """Whether rows of tokens were torn apart: no length of the result holds all of them."""
    places = [i for i, length in enumerate(before) if length in (groups, tokens)]
    ends = list(accumulate(after, mul, initial=1))
    for i in places:
        start = prod(before[:i])
        end = start * before[i]
        if any(first <= start and last >= end for first, last in pairwise(ends)):
            return False
    return bool(places)


def _marked(result: Any, tokens: Any) -> Any:
    """Return a result as features, if it still has a row a group."""
    if not isinstance(result, Tensor) or isinstance(result, ReducedFeatures):
        return result
    if result is tokens.x:
        return tokens
    groups = tokens.sizes.shape[1]
    if groups == 0 and result.numel() == 0 and tokens.x.numel() > 0:
        raise ValueError(PREFIX_ONLY)
    counts = (groups, tokens.x.shape[1])
    has_rows = any(length in counts for length in result.shape[-2:])
    if torch.compiler.is_compiling() or not has_rows or (groups == 0 and result.dim() < 3):
        return result
    features: Any = result.as_subclass(ReducedFeatures)
    features.tokens = tokens
    features.untouched = False
    return features
