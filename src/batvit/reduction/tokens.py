"""What goes from block to block after the first site."""

from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from batvit.core import Assignment, merge
from batvit.core.merge import unmerge


@dataclass(frozen=True, eq=False)
class Tokens:
    """What goes from block to block after the first site: all state of one forward pass travels here."""

    x: Float[Tensor, "batch tokens channels"]
    """prefix tokens, then one token a group"""
    size: Float[Tensor, "batch groups"]
    """how many patches each group holds"""
    origin: Assignment
    """which group each patch of the image is in"""
    padded: bool = False
    """whether some patches are padding: they have size 0, weigh nothing in any group, and are attended to by none"""
    bias: Float[Tensor, "batch 1 1 tokens"] | None = None
    """what is added to the attention logits, in the type of ``x``; see :meth:`with_size_bias`"""
    rope: tuple[Tensor, ...] = ()
    """the rotary tables, a row a patch, that :attr:`merged_rope` were made of"""
    merged_rope: tuple[Tensor, ...] = ()
    """the same rope, a row a group; see :meth:`with_rotary`"""

    @classmethod
    def start(
        cls,
        x: Float[Tensor, "batch tokens channels"],
        prefix: int,
        real: Bool[Tensor, "batch patches"] | None = None,
    ) -> "Tokens":
        """Every patch a group of its own; ``real`` is False where a patch is padding."""
        batch, patches = x.shape[0], x.shape[1] - prefix
        size = (
            torch.ones(batch, patches, dtype=torch.float32, device=x.device)
            if real is None
            else real.float()
        )
        tokens = cls(
            x, size, Assignment.identity(batch, patches, x.device), padded=real is not None
        )
        # all sizes are one
        return tokens.with_size_bias(size_aware=False)

    def with_size_bias(self, size_aware: bool, size_power: float = 1.0) -> "Tokens":
        """The same with a bias that fits the sizes; None if the attention needs none.

        With ``size_aware`` the logarithms of the sizes, times their power: a token that stands for five counts as five, or as
        5 ** power. Padding gets -inf.
        """
        if not (size_aware or self.padded):
            return replace(self, bias=None)
        logs = (self.size if size_aware else (self.size > 0).float()).log() * size_power
        bias = nn.functional.pad(logs, (self.x.shape[1] - logs.shape[1], 0))[:, None, None]
        return replace(self, bias=bias.to(self.x.dtype))

    def with_rotary(self, rope: tuple[Tensor, ...]) -> "Tokens":
        """The same with the rows of these rotary tables for each group.

        They are merged only where they are not the very rope that were merged last: as groups change at sites alone, once
        a site, if all blocks are given the same rope.
        """
        if len(rope) == len(self.rope) and all(
            new is old for new, old in zip(rope, self.rope, strict=True)
        ):
            return self
        return replace(self, rope=rope, merged_rope=tuple(self.positions(table) for table in rope))

    def positions(
        self, table: Float[Tensor, "*batch_and_heads patches width"]
    ) -> Float[Tensor, "batch _ groups width"]:
        """The rows of a rotary table for each group: the mean of the rows of its patches.

        Rotation is linear. So the merged key, turned by the mean rotation of its patches, meets every query at the mean of
        the logits that it would have if it stood at each of these patches in turn.

        Args:
            table: sines or cosines for every patch: (N, D), (H, N, D) or (B, H, N, D), where H may be 1.

        Returns:
            (B, 1 or H, M, D): what broadcasts over the queries (B, H, M, D).
        """
        rows = table[(None,) * (4 - table.dim())].transpose(1, 2)
        flat = rows.flatten(2).expand(self.origin.batch, -1, -1)
        merged: Tensor = merge(flat, self.origin).unflatten(-1, rows.shape[2:])
        return merged.transpose(1, 2)

    def grid(self) -> Float[Tensor, "batch tokens channels"]:
        """Every patch gets its group's feature back, so that what pools patches weights a group by its size."""
        prefix = self.x.shape[1] - self.size.shape[1]
        return torch.cat([self.x[:, :prefix], unmerge(self.x[:, prefix:], self.origin)], dim=1)
