"""A block from the first site on, whatever library it comes from."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any, ClassVar, NamedTuple, NoReturn

from torch import Tensor, fx, nn

from batvit.reduction.features import ReducedFeatures, has_listeners
from batvit.reduction.site import QueriesKeys, Reduce
from batvit.reduction.tokens import Tokens
from batvit.reduction.wrapped import (
    own_class,
    reduced_class,
    refuse_split_attention,
    remade,
)


class Parts(NamedTuple):
    """The names of a block's modules in the order in which it runs them.

    x + after_attention(attention(attention_norm(x))), then the same with the MLP. What comes after
    may be weights too, or numbers, by which channels are multiplied; None is passed over.
    """

    attention_norm: str
    attention: str
    after_attention: tuple[str, ...]
    mlp_norm: str
    mlp: str
    after_mlp: tuple[str, ...]


class ReducedBlock(nn.Module):
    """A block that takes and returns :class:`Tokens`, and reduces them if it is a site.

    The last block gives a tensor back. A library's adapter derives ``class ReducedX(ReducedBlock,
    X)`` from its own block class X. ``patch`` turns a block into that class in place, and
    ``unpatch`` turns it back: no weight is moved or renamed.
    """

    parts: ClassVar[Parts]
    attentions: ClassVar[tuple[type, ...]]
    """the classes of attention that :meth:`attend` knows"""
    mask: ClassVar[str | None]
    """the argument of the block's forward that is added to the attention logits; None if there is
    no such argument"""

    prefix: int
    """tokens before the patches, those that Tokens.start puts there from behind included"""
    suffix: int
    """how many tokens the model has behind the patches"""
    output_form: str
    """how it leaves its tokens; see :meth:`run`"""
    reduce: Reduce | None
    """the reduction, if it is a site"""
    first: bool
    """whether no block before it is reduced, so that it takes a tensor"""

    @classmethod
    def own_class(cls) -> type[nn.Module]:
        """Return the library's own class of the block, whatever was made from its reduced class."""
        return own_class(cls, ReducedBlock)

    @classmethod
    def reduced_class(cls) -> type["ReducedBlock"]:
        """Return the reduced class as an adapter wrote it, whatever was made from it."""
        reduced: type[ReducedBlock] = reduced_class(cls, ReducedBlock)
        return reduced

    @classmethod
    def own_attention(cls, attention: nn.Module) -> nn.Module:
        """Return the module that :attr:`attentions` names, for an attention of a block."""
        return attention

    def attend(
        self, x: Tensor, bias: Tensor | None, arguments: dict[str, Any]
    ) -> tuple[Tensor, QueriesKeys | Callable[[], QueriesKeys] | None]:
        """Run the block's own attention, untouched, and capture the queries and keys it makes.

        Args:
            x: (B, prefix + M, C), normalised.
            bias: (B, 1, 1, prefix + M), to be added to the attention logits, or None.
            arguments: what else the block was called with.

        Returns:
            What the attention gives (B, prefix + M, C), and what was captured, or what a call would
            make once more; None will do if the block is no site.
        """
        raise NotImplementedError

    def rope(self, arguments: dict[str, Any]) -> tuple[Tensor, ...]:
        """Return the rotary tables among the block's arguments, a row a patch; none as a rule."""
        return ()

    def with_rope(self, arguments: dict[str, Any], rope: tuple[Tensor, ...]) -> dict[str, Any]:
        """Return the block's arguments with other rotary tables, a row a token that is left.

        Called only if there are any.
        """
        return arguments

    @classmethod
    def trial(cls, block: Any, x: Tensor) -> dict[str, Any]:
        """Return arguments with which a block runs on its own, for the self-check.

        Args:
            block: it need not be reduced.
            x: (B, tokens, C), the first of them a prefix.
        """
        return {}

    def __prepare_scriptable__(self) -> NoReturn:
        """Refuse ``torch.jit.script``, which asks every module of a model for this."""
        raise TypeError(
            "torch.jit.script cannot read a reduced model, whose blocks hand on more than a "
            "tensor; use torch.jit.trace(model, images), torch.export.export or batvit.export, or "
            "batvit.unpatch the model"
        )

    def run(
        self,
        x: Tensor | Tokens,
        *,
        output_form: str | None = None,
        real: Tensor | None = None,
        **arguments: Any,
    ) -> Any:
        """Do what the block's own forward does, with the tokens' sizes and origins beside them.

        Args:
            x: a tensor (B, prefix + N, C) before the first site, tokens after it.
            output_form: "tokens", a "tensor" with a token a group, the "grid" with one a patch, or
                the "prefix" tokens alone; :attr:`output_form` by default.
            real: (B, N), False where a patch is padding; read with a tensor only, as tokens know
                it.
            arguments: of the block's forward.
        """
        refuse_symbols(x)
        output_form = output_form or self.output_form
        rope = self.rope(arguments)
        x = Tokens.of(x)
        if isinstance(x, Tokens):
            x.refuse_lost_gradients()
            tokens = x.with_rotary(rope)
            if rope:
                arguments = self.with_rope(arguments, tokens.merged_rope)
        else:
            if not self.first:
                refuse_tensor(x)
            tokens = Tokens.start(x, self.prefix, real, suffix=self.suffix)
        takes_bias = tokens.bias is None or self.mask is not None
        if self.reduce is None and output_form != "prefix" and takes_bias:
            tokens = self._run_whole(tokens, arguments)
        else:
            tokens = self._run_opened(tokens, arguments, rope, output_form)
        if output_form == "grid":
            return tokens.grid()
        if output_form == "prefix":
            return Tokens.of_prefix(tokens.x)
        if output_form == "tensor" and tokens.suffix:
            return tokens.in_order()
        if output_form == "tokens":
            refuse_backward_hooks(self)
        if has_listeners(self):
            return ReducedFeatures.given(tokens)
        return tokens if output_form == "tokens" else tokens.x

    def _run_whole(self, tokens: Tokens, arguments: dict[str, Any]) -> Tokens:
        """Run the block's own forward."""
        if tokens.bias is not None and self.mask is not None:
            arguments = arguments | {self.mask: tokens.bias}
        return replace(tokens, x=features_of(super().forward(tokens.x, **arguments)))

    def _run_opened(
        self, tokens: Tokens, arguments: dict[str, Any], rope: tuple[Tensor, ...], output_form: str
    ) -> Tokens:
        """Run the block's own forward, opened between its two lines.

        ``patch`` proves that it still has just these (:mod:`batvit.reduction.self_check`).
        """
        parts = self.parts
        if self.reduce is not None:
            refuse_split_attention(getattr(self, parts.attention))
        x = self._through((parts.attention_norm,), tokens.x)
        x, captured = self.attend(x, tokens.bias, arguments)
        x = tokens.x + self._through(parts.after_attention, x)
        tokens = replace(tokens, x=x)

        if output_form == "prefix":
            # a site here would reduce what nobody reads
            tokens = replace(tokens, x=x[:, : self.prefix], bias=None)
        elif self.reduce is not None and captured is not None:
            tokens = Tokens.of(self.reduce(tokens, captured, rope))

        return replace(tokens, x=self.second_line(tokens.x))

    def second_line(self, x: Tensor) -> Tensor:
        """Run the line of the MLP, its residual included."""
        parts = self.parts
        return x + self._through((parts.mlp_norm, parts.mlp, *parts.after_mlp), x)

    def _through(self, names: tuple[str, ...], x: Tensor) -> Tensor:
        """Run parts of the block one after the other."""
        for name in names:
            part = getattr(self, name)
            if callable(part):
                x = part(x)
            elif part is not None:
                x = part * x
        return x


def features_of(output: Any) -> Any:
    """Return the features in what a block gives: some give a tuple, which they come first in."""
    return output[0] if isinstance(output, tuple) else output


def refuse_backward_hooks(block: nn.Module) -> None:
    """Refuse a backward hook on a block: torch calls it for what gives a tensor.

    Raises:
        ValueError: naming the remedies.
    """
    if block._backward_hooks or block._backward_pre_hooks:
        raise ValueError(
            "a backward hook on a reduced block would never be called: it hands on more than a "
            "tensor; register it on a module inside (norm, attention, mlp), or hook the features "
            "that a forward hook gets (output.register_hook)"
        )


def refuse_mask(mask: Tensor | None, is_causal: bool = False) -> None:
    """Refuse a mask of the user's.

    Raises:
        ValueError: if there is one; the tokens that it is about are merged.
        TypeError: if the model is traced with symbols, of which every argument is one.
    """
    refuse_symbols(mask, is_causal)
    if mask is not None or is_causal:
        raise ValueError(
            "a reduced model takes no attn_mask: the tokens it is about are merged; "
            "batvit.unpatch the model"
        )


def refuse_symbols(*values: Any) -> None:
    """Refuse the symbols that ``torch.fx`` traces a model with: a reduced one reads shapes.

    Raises:
        TypeError: naming the other ways to a graph, and to features.
    """
    if any(isinstance(value, fx.Proxy) for value in values):
        raise TypeError(
            "torch.fx cannot trace a reduced model with symbols, as create_feature_extractor does; "
            "take features by forward hooks or the model's forward_intermediates, a graph by "
            "torch.export.export, or batvit.unpatch the model"
        )


def refuse_tensor(x: Tensor) -> None:
    """Refuse a tensor where tokens would say how many patches each group holds.

    Raises:
        ValueError: naming the remedies.
    """
    raise ValueError(
        f"a block behind the first reduced one takes what the block before it gave, got a tensor "
        f"{tuple(x.shape)}: a hook or a wrapper gave back another one, without the sizes of its "
        "tokens; compute it of the block's output in the same shape, or give "
        "batvit.reduction.tokens.Tokens.start(x, prefix) where no token is merged yet"
    )


def become_reduced(
    block: nn.Module,
    reduced: type[ReducedBlock],
    *,
    prefix: int,
    output_form: str,
    reduce: Reduce | None,
    first: bool = True,
    suffix: int = 0,
) -> None:
    """Turn a block into its reduced class, in place; what a wrapper made of its class, it stays."""
    changed: Any = block
    changed.prefix = prefix
    changed.suffix = suffix
    changed.output_form = output_form
    changed.first = first
    if reduce is None:
        changed.reduce = None
    else:
        # a copy: another thread may be going through the modules of the model
        changed._modules = changed._modules | {"reduce": reduce}
    changed.__class__ = remade(type(block), reduced.own_class(), reduced)


def become_dense(block: nn.Module) -> None:
    """Turn a reduced block back into what it was."""
    # by its general type: what it is here is no longer what it was called with
    changed: Any = block
    changed.__class__ = remade(type(changed), changed.reduced_class(), changed.own_class())
    # a copy: another thread may be going through the modules of the model
    changed._modules = {name: part for name, part in changed._modules.items() if name != "reduce"}
    for name in ("prefix", "suffix", "output_form", "reduce", "first"):
        vars(changed).pop(name, None)
