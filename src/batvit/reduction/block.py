"""A block from the first site on, whatever library it comes from."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any, ClassVar, NamedTuple

from torch import Tensor, nn

from batvit.reduction.site import QueriesKeys, Reduce
from batvit.reduction.tokens import Tokens


class Parts(NamedTuple):
    """The names of a block's modules in the order in which it runs them.

    x + after_attention(attention(attention_norm(x))), then the same with the MLP.
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
    mask: ClassVar[str | None]
    """the argument of the block's forward that is added to the attention logits; None if there is no such argument"""

    prefix: int
    output_form: str
    reduce: Reduce | None

    def attend(
        self, x: Tensor, bias: Tensor | None, arguments: dict[str, Any]
    ) -> tuple[Tensor, QueriesKeys | Callable[[], QueriesKeys] | None]:
        """Run the block's own attention, untouched, and hear the queries and keys that it makes.

        Args:
            x: (B, prefix + M, C), normalised.
            bias: (B, 1, 1, prefix + M), to be added to the attention logits, or None.
            arguments: what else the block was called with.

        Returns:
            What the attention gives (B, prefix + M, C), and what was captured, or what a call would make once more; None will do
            if the block is no site.
        """
        raise NotImplementedError

    def rope(self, arguments: dict[str, Any]) -> tuple[Tensor, ...]:
        """The rotary tables among the arguments of the block, a row a patch; none as a rule."""
        return ()

    def with_rope(self, arguments: dict[str, Any], rows: tuple[Tensor, ...]) -> dict[str, Any]:
        """The arguments of the block with other rope, a row a token that is left; called only if there are any."""
        return arguments

    def trial(self, x: Tensor) -> dict[str, Any]:
        """Arguments with which the block runs on its own, to prove that it is the one known."""
        return {}

    def run(
        self,
        x: Tensor | Tokens,
        *,
        output_form: str | None = None,
        real: Tensor | None = None,
        **arguments: Any,
    ) -> Any:
        """What the block's own forward does, with the tokens' sizes and origins beside them.

        Args:
            x: a tensor (B, prefix + N, C) before the first site, tokens after it.
            output_form: "tokens", a "tensor" with a token a group, the "grid" with one a patch, or the "prefix" tokens alone; its
                own way by default.
            real: (B, N), False where a patch is padding; read with a tensor only, as tokens know it.
            arguments: of the block's forward.
        """
        rope = self.rope(arguments)
        if isinstance(x, Tokens):
            tokens = x.with_rotary(rope)
            arguments = self.with_rope(arguments, tokens.merged_rope) if rope else arguments
        else:
            tokens = Tokens.start(x, self.prefix, real)
        bias, way = tokens.bias, output_form or self.output_form
        if self.reduce is not None or way == "prefix" or (bias is not None and self.mask is None):
            tokens = self._opened(tokens, arguments, rope, way)
        else:
            known = (
                arguments if bias is None or self.mask is None else arguments | {self.mask: bias}
            )
            tokens = replace(tokens, x=super().forward(tokens.x, **known))
        return tokens if way == "tokens" else tokens.grid() if way == "grid" else tokens.x

    def _opened(
        self, tokens: Tokens, arguments: dict[str, Any], rope: tuple[Tensor, ...], way: str
    ) -> Tokens:
        # the block's own forward, opened between its two lines; patch proves that it still has just these
        parts = self.parts
        attended, captured = self.attend(
            self._through((parts.attention_norm,), tokens.x), tokens.bias, arguments
        )
        tokens = replace(tokens, x=tokens.x + self._through(parts.after_attention, attended))
        if way == "prefix":
            # a site here would reduce what nobody reads
            tokens = replace(tokens, x=tokens.x[:, : self.prefix], bias=None)
        elif self.reduce is not None and captured is not None:
            tokens = self.reduce(tokens, captured, rope)
        return replace(
            tokens,
            x=tokens.x + self._through((parts.mlp_norm, parts.mlp, *parts.after_mlp), tokens.x),
        )

    def _through(self, names: tuple[str, ...], x: Tensor) -> Tensor:
        for name in names:
            x = getattr(self, name)(x)
        return x


def refuse_mask(mask: Tensor | None, is_causal: bool = False) -> None:
    """Raise ValueError for a mask that the user gives: the tokens that it is about are merged."""
    if mask is not None or is_causal:
        raise ValueError(
            "a reduced model takes no attn_mask: the tokens it is about are merged; batvit.unpatch the model"
        )


def refuse_reentrant(reentrant: bool) -> None:
    """Raise ValueError for gradient checkpointing that would lose gradients silently: it sees no tensor in Tokens."""
    if reentrant:
        raise ValueError(
            "re-entrant gradient checkpointing loses the gradients of a reduced model; use use_reentrant=False, the default "
            "(timm.layers.set_reentrant_ckpt(False))"
        )


def become_reduced(
    block: nn.Module,
    reduced: type[ReducedBlock],
    *,
    prefix: int,
    output_form: str,
    reduce: Reduce | None,
) -> None:
    """Turn a block into its reduced class, in place."""
    known: Any = block
    known.__class__ = reduced
    known.prefix, known.output_form, known.reduce = prefix, output_form, reduce


def become_dense(block: nn.Module) -> None:
    """Turn a reduced block back into what it was."""
    for name in ("prefix", "output_form", "reduce"):
        delattr(block, name)
    block.__class__ = type(block).__bases__[-1]
