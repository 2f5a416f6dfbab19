"""What goes from block to block after the first site."""

from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor, nn

from batvit.core import Assignment, merge, sum_by_group, unmerge
from batvit.reduction.autograd_function import refuse_lost_gradients, running_function
from batvit.reduction.features import AnswersAsTensor, ReducedFeatures


@dataclass(frozen=True, eq=False)
class Tokens(AnswersAsTensor):
    """All state of one forward pass: features, sizes, and the map from patches to groups.

    To torch's functions, and to what reads attributes of tensors, it is its features ``x``.
    """

    x: Float[Tensor, "batch tokens channels"]
    """prefix tokens, then one token a group"""
    sizes: Int64[Tensor, "batch groups"]
    """how many patches each group holds; integers, which no cast to a shorter type reaches"""
    origin: Assignment
    """which group each patch of the image is in"""
    padded: bool = False
    """whether some patches are padding: they have size 0, weigh nothing in any group, and are
    attended to by none"""
    bias: Float[Tensor, "batch 1 1 tokens"] | None = None
    """what is added to the attention logits, in the type of ``x``; see :meth:`with_size_bias`"""
    rope: tuple[Tensor, ...] = ()
    """the rotary tables, a row a patch, that :attr:`merged_rope` was made of"""
    merged_rope: tuple[Tensor, ...] = ()
    """the same tables, a row a group; see :meth:`with_rotary`"""
    suffix: int = 0
    """how many of the prefix tokens, the last of them, the model has behind the patches"""
    made_in: Any = None
    """the autograd function in whose ``forward`` they were made without gradients, if any; they
    hide from it, so they may not leave it"""

    @classmethod
    def of(cls, value: Any) -> Any:
        """Return the tokens behind features that went to a listener; anything else as it is."""
        return value.restored() if isinstance(value, ReducedFeatures) else value

    @staticmethod
    def of_prefix(x: Float[Tensor, "batch prefix channels"]) -> Tensor:
        """Return prefix tokens that refuse to be read as if patches stood behind them."""
        # a graph has constants for what is read
        if torch.compiler.is_compiling() or torch.jit.is_tracing():  # type: ignore[attr-defined,no-untyped-call]
            return x
        batch = x.shape[0]
        none = Assignment.identity(batch, 0, x.device)
        return ReducedFeatures.given(Tokens(x, none.index, none))

    def refuse_lost_gradients(self) -> None:
        """Refuse to go on where an autograd function did not see them, with ValueError."""
        refuse_lost_gradients(self.made_in, self.x.requires_grad)

    @classmethod
    def start(
        cls,
        x: Float[Tensor, "batch tokens channels"],
        prefix: int,
        real: Bool[Tensor, "batch patches"] | None = None,
        suffix: int = 0,
    ) -> "Tokens":
        """Return tokens of which every patch is a group of its own.

        Args:
            x: (B, prefix + N, C), in the order of the model.
            prefix: tokens that are no patches.
            real: False where a patch is padding; all are real when None.
            suffix: how many of those the model has behind the patches; they are put before them.
        """
        if suffix:
            before = prefix - suffix
            x = torch.cat([x[:, :before], x[:, -suffix:], x[:, before:-suffix]], dim=1)
        batch = x.shape[0]
        patches = x.shape[1] - prefix
        if real is None:
            sizes = torch.ones(batch, patches, dtype=torch.int64, device=x.device)
        else:
            sizes = real.long()
        origin = Assignment.identity(batch, patches, x.device)
        tokens = cls(
            x, sizes, origin, padded=real is not None, suffix=suffix, made_in=running_function()
        )
        # all sizes are one
        return tokens.with_size_bias(size_aware=False)

    def regrouped(
        self, x: Float[Tensor, "batch tokens channels"], assignment: Assignment
    ) -> "Tokens":
        """Return the tokens of the groups that an assignment makes of these.

        Without bias and rotary tables, which fitted the groups before.

        Args:
            x: prefix tokens, then one token a new group.
            assignment: M groups to fewer.
        """
        return replace(
            self,
            x=x,
            sizes=sum_by_group(self.sizes.float(), assignment).long(),
            origin=self.origin.then(assignment),
            bias=None,
            rope=(),
            merged_rope=(),
        )

    def with_size_bias(self, size_aware: bool, size_power: float = 1.0) -> "Tokens":
        """Return the same tokens with a bias that fits the sizes; None if attention needs none.

        With ``size_aware`` it holds the logarithms of the sizes, times their power: a token that
        stands for five counts as five, or as 5 ** power. Prefix tokens count once. Padding gets
        -inf.
        """
        if not size_aware and not self.padded:
            return replace(self, bias=None)
        sizes = self.sizes if size_aware else self.sizes > 0
        logs = sizes.float().log() * size_power
        prefix = self.x.shape[1] - logs.shape[1]
        bias = nn.functional.pad(logs, (prefix, 0))[:, None, None]
        return replace(self, bias=bias.to(self.x.dtype))

    def with_features(self, x: Tensor) -> "Tokens":
        """Return the same tokens with other features; their type and device are those of all."""
        bias = None if self.bias is None else self.bias.to(x)
        if x.device == self.sizes.device:
            return replace(self, x=x, bias=bias)
        return replace(
            self,
            x=x,
            bias=bias,
            sizes=self.sizes.to(x.device),
            origin=replace(self.origin, index=self.origin.index.to(x.device)),
            # merged anew of what the next block is given
            rope=(),
            merged_rope=(),
        )

    def with_rotary(self, rope: tuple[Tensor, ...]) -> "Tokens":
        """Return the same tokens with these rotary tables merged to a row a group.

        They are merged only where they are not the very tables that were merged last: groups change
        at sites alone, so once a site, if all blocks are given the same tables.
        """
        if _same_objects(rope, self.rope):
            return self
        merged = tuple(self.merge_table(table) for table in rope)
        return replace(self, rope=rope, merged_rope=merged)

    def merge_table(
        self, table: Float[Tensor, "*batch_and_heads patches width"]
    ) -> Float[Tensor, "batch _ groups width"]:
        """Return the rows of a rotary table for each group: the mean of the rows of its patches.

        Rotation is linear. So the merged key, turned by the mean rotation of its patches, meets
        every query at the mean of the logits that it would have if it stood at each of these
        patches in turn.

        Args:
            table: sines or cosines for every patch: (N, D), (H, N, D) or (B, H, N, D), where H may
                be 1.

        Returns:
            (B, 1 or H, M, D): what broadcasts over the queries (B, H, M, D).
        """
        missing = 4 - table.dim()
        # (1 or B, N, 1 or H, D), so that patches are where tokens are
        rows = table[(None,) * missing].transpose(1, 2)
        flat = rows.flatten(2).expand(self.origin.batch, -1, -1)
        merged: Tensor = merge(flat, self.origin).unflatten(-1, rows.shape[2:])
        return merged.transpose(1, 2)

    def grid(self) -> Float[Tensor, "batch tokens channels"]:
        """Return prefix tokens and one token a patch: each gets the feature of its group back.

        So what pools patches weights a group by its size.
        """
        self.refuse_lost_gradients()
        prefix = self.x.shape[1] - self.sizes.shape[1]
        return self.in_order(unmerge(self.x[:, prefix:], self.origin))

    def in_order(self, image: Tensor | None = None) -> Float[Tensor, "batch tokens channels"]:
        """Return all tokens where the model has them, those behind the patches at the end.

        Args:
            image: what stands for the groups; their features by default.
        """
        groups = self.sizes.shape[1]
        prefix = self.x.shape[1] - groups
        before = prefix - self.suffix
        parts = [self.x[:, :before], self.x[:, prefix:] if image is None else image]
        if self.suffix:
            parts.append(self.x[:, before:prefix])
        return torch.cat(parts, dim=1)


def _same_objects(one: tuple[Tensor, ...], other: tuple[Tensor, ...]) -> bool:
    if len(one) != len(other):
        return False
    return all(new is old for new, old in zip(one, other, strict=True))
