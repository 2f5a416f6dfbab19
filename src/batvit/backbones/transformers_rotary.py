"""Layers of transformers that are given rotary tables: a row a patch, or a row a token."""

from typing import Any, ClassVar

import torch
from torch import Tensor

from batvit.backbones.transformers_common import ReducedLayer


class RotaryLayer(ReducedLayer):
    """A layer that is given the cosines and sines of all patches."""

    prefix_rows: ClassVar[int] = 0
    """rows of the tables for the prefix token of a trial"""

    def forward(
        self,
        hidden_states: Any,
        attention_mask: Tensor | None = None,
        position_embeddings: Any = None,
        **arguments: Any,
    ) -> Any:
        return super().forward(
            hidden_states, attention_mask, position_embeddings=position_embeddings, **arguments
        )

    def rope(self, arguments: dict[str, Any]) -> tuple[Tensor, ...]:
        return tuple(arguments["position_embeddings"])

    def with_rope(self, arguments: dict[str, Any], rope: tuple[Tensor, ...]) -> dict[str, Any]:
        return arguments | {"position_embeddings": rope}

    @classmethod
    def trial(cls, block: Any, x: Tensor) -> dict[str, Any]:
        # cosine and sine of one angle for all
        rows = x.shape[1] - 1 + cls.prefix_rows
        ones = x.new_ones(rows, getattr(block, cls.parts.attention).head_dim)
        return super().trial(block, x) | {"position_embeddings": (0.6 * ones, 0.8 * ones)}


class RotaryOfTokensLayer(RotaryLayer):
    """A layer whose tables have rows of the prefix tokens, too (MLCD)."""

    prefix_rows = 1

    def forward(  # type: ignore[override]
        self,
        hidden_states: Any,
        position_embeddings: Any = None,
        attention_mask: Tensor | None = None,
        **arguments: Any,
    ) -> Any:
        return super().forward(hidden_states, attention_mask, position_embeddings, **arguments)

    def rope(self, arguments: dict[str, Any]) -> tuple[Tensor, ...]:
        return tuple(table[self.prefix :] for table in arguments["position_embeddings"])

    def with_rope(self, arguments: dict[str, Any], rope: tuple[Tensor, ...]) -> dict[str, Any]:
        tables = []
        for table, merged in zip(arguments["position_embeddings"], rope, strict=True):
            groups = merged[:, 0]
            prefix = table[: self.prefix].expand(groups.shape[0], -1, -1)
            tables.append(_OfEachImage(torch.cat([prefix, groups], dim=1)))
        return arguments | {"position_embeddings": tuple(tables)}


class _OfEachImage:
    """A table (B, tokens, D) for an attention that expects (tokens, D), and unsqueezes it."""

    def __init__(self, table: Tensor) -> None:
        self.table = table

    def unsqueeze(self, dim: int) -> Tensor:
        """Return the table, which has that dimension."""
        return self.table
