"""A block from the first site on, whatever library it comes from."""

import sys
from dataclasses import replace
from functools import partial
from types import MethodType
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor, nn

from batvit.backbones.site import Heard, Reduce, Tokens
from batvit.config import BATConfig
from batvit.copies import quiet_copy


class Parts(NamedTuple):
    """The names of a block's modules in the order in which it runs them.

    x + after_attention(attention(attention_norm(x))), then the same with the MLP. None stands for nothing.
    """

    attention_norm: str
    attention: str
    after_attention: tuple[str, ...]
    mlp_norm: str
    mlp: str
    after_mlp: tuple[str, ...]


class ReducedBlock(nn.Module):
    """Takes and returns :class:`Tokens`, and reduces them if it is a site; gives a tensor back where the blocks end.

    A library's adapter derives ``class ReducedX(ReducedBlock, X)`` from its own block class X. ``patch`` turns a block into
    that class in place, and ``unpatch`` turns it back: no weight is moved or renamed.
    """

    parts: ClassVar[Parts]
    attentions: ClassVar[tuple[type, ...]]
    """the classes of attention that :meth:`attend` knows"""
    mask: ClassVar[str]
    """the argument of the block's forward that is added to the attention logits"""

    prefix: int
    size_aware: bool
    leave_as: str
    reduce: Reduce | None

    def attend(self, x: Tensor, bias: Tensor | None, arguments: dict[str, Any]) -> tuple[Tensor, Heard]:
        """Run the block's own attention, untouched, and hear the queries and keys that it makes.

        Args:
            x: (B, prefix + M, C), normalised.
            bias: (B, 1, 1, prefix + M), to be added to the attention logits, or None.
            arguments: what else the block was called with.

        Returns:
            What the attention gives (B, prefix + M, C), and what was heard.
        """
        raise NotImplementedError

    def moved(self, arguments: dict[str, Any], tokens: Tokens) -> dict[str, Any]:
        """The arguments of the block for the tokens that are left: positions, if they are given to every block."""
        return arguments

    def trial(self, x: Tensor) -> dict[str, Any]:
        """Arguments with which the block runs on its own, to prove that it is the one known."""
        return {}

    def bias(self, tokens: Tokens) -> Tensor:
        """The logarithms of the sizes as the attention takes them."""
        return tokens.bias().to(tokens.x.dtype)

    def run(self, x: Tensor | Tokens, *, leave_as: str | None = None, **arguments: Any) -> Any:
        """What the block's own forward does, with the tokens' sizes and origins beside them.

        Args:
            x: a tensor (B, prefix + N, C) before the first site, tokens after it.
            leave_as: "tokens", a "tensor" with a token a group, or the "grid" with one a patch; its own way by default.
            arguments: of the block's forward.
        """
        tokens = x if isinstance(x, Tokens) else Tokens.start(x, self.prefix)
        arguments = self.moved(arguments, tokens) if isinstance(x, Tokens) else arguments
        bias = self.bias(tokens) if self.size_aware and isinstance(x, Tokens) else None
        if self.reduce is None:
            if bias is not None:
                arguments = arguments | {self.mask: bias}
            tokens = replace(tokens, x=super().forward(tokens.x, **arguments))
        else:
            tokens = self._with_reduction(tokens, bias, arguments, self.reduce)
        way = leave_as or self.leave_as
        return tokens if way == "tokens" else tokens.grid() if way == "grid" else tokens.x

    def _with_reduction(self, tokens: Tokens, bias: Tensor | None, arguments: dict[str, Any], reduce: Reduce) -> Tokens:
        # the block's own forward, opened between its two lines; patch proves that it still has just these
        parts = self.parts
        attended, heard = self.attend(self._through((parts.attention_norm,), tokens.x), bias, arguments)
        x = tokens.x + self._through(parts.after_attention, attended)
        tokens = reduce(replace(tokens, x=x), heard)
        x = tokens.x + self._through((parts.mlp_norm, parts.mlp, *parts.after_mlp), tokens.x)
        return replace(tokens, x=x)

    def _through(self, names: tuple[str, ...], x: Tensor) -> Tensor:
        for name in names:
            x = getattr(self, name)(x)
        return x


def refuse_mask(mask: Tensor | None, is_causal: bool = False) -> None:
    """Raise ValueError for a mask that the user gives: the tokens that it is about are merged."""
    if mask is not None or is_causal:
        raise ValueError("a reduced model takes no attn_mask: the tokens it is about are merged; batvit.unpatch the model")


def become_reduced(
    block: nn.Module, reduced: type[ReducedBlock], *, prefix: int, size_aware: bool, leave_as: str, reduce: Reduce | None
) -> None:
    """Turn a block into its reduced class, in place."""
    known: Any = block
    known.__class__ = reduced
    known.prefix, known.size_aware, known.leave_as, known.reduce = prefix, size_aware, leave_as, reduce


def become_dense(block: nn.Module) -> None:
    """Turn a reduced block back into what it was."""
    for name in ("prefix", "size_aware", "leave_as", "reduce"):
        delattr(block, name)
    block.__class__ = type(block).__bases__[-1]


def prove(block: nn.Module, reduced: type[ReducedBlock], i: int, width: int) -> None:
    """Refuse a block that computes something else once it is opened: its forward is not the one known here.

    Raises:
        TypeError: naming the class and the difference.
    """
    weight = next(block.parameters())
    if weight.is_meta:
        return
    x = torch.linspace(-1, 1, 5 * width, device=weight.device).reshape(1, 5, -1).to(weight.dtype)
    keep_all = Reduce(BATConfig(keep_rate=1.0, blocks=(i,)), i, depth=i + 1, prefix=1, class_token=True)
    twin: Any = quiet_copy(block)
    if isinstance(twin, ReducedBlock):
        become_dense(twin)
    arguments = reduced.trial(twin, x)
    dense = reduced.__bases__[-1]
    library = dense.__module__.partition(".")[0]
    version = getattr(sys.modules[library], "__version__", "of unknown version")
    what = f"{dense.__qualname__} of {library} {version} does not compute what batvit was written for"
    with torch.no_grad():
        expected = twin(x, **arguments)
        try:
            become_reduced(twin, reduced, prefix=1, size_aware=False, leave_as="tensor", reduce=keep_all)
            found = twin(x, **arguments)
        except (AttributeError, TypeError) as error:
            raise TypeError(f"{what}: {error}") from error
    if not torch.allclose(expected.float(), found.float(), rtol=1e-3, atol=1e-3):
        raise TypeError(f"{what}: opened, it differs by {(expected - found).abs().max():.2g}")


class WithGrid(nn.Module):
    """A model whose ``forward_intermediates`` gives maps of the full grid, though its blocks merge tokens.

    A library's adapter derives ``class ReducedX(WithGrid, X)`` from the class X that has that method. The method itself
    runs as it is, on a stand-in for the model whose blocks take and return the grid.
    """

    blocks_name: ClassVar[str] = "blocks"

    def forward_intermediates(self, *args: Any, **arguments: Any) -> Any:
        """As the model's own: every patch has the feature of the group that it is in by then."""
        own: MethodType = super().forward_intermediates  # type: ignore[misc]
        return own.__func__(_Unmerging(self), *args, **arguments)


class _Unmerging:
    """Stands in for a model during one call: between its blocks, what is merged is given back."""

    def __init__(self, model: WithGrid) -> None:
        self._model = model
        carried: list[Tensor | Tokens | None] = [None] * (len(getattr(model, model.blocks_name)) + 1)
        blocks = [partial(_unmerged, block, i, carried) for i, block in enumerate(getattr(model, model.blocks_name))]
        setattr(self, model.blocks_name, blocks)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._model, name)


def _unmerged(
    block: nn.Module, i: int, carried: list[Tensor | Tokens | None], x: Tensor, *args: Any, **arguments: Any
) -> Tensor:
    """Run one block on what its predecessor left, and give its result as a grid."""
    before = x if carried[i] is None else carried[i]
    if not isinstance(block, ReducedBlock):
        first: Tensor = block(before, *args, **arguments)
        return first
    tokens: Tokens = block(before, *args, leave_as="tokens", **arguments)
    carried[i + 1] = tokens
    return tokens.grid()
