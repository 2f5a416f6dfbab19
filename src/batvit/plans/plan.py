"""What a plan is given and what it returns."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, NamedTuple

from jaxtyping import Float
from torch import Tensor

from batvit.config import BATConfig, Counts
from batvit.core import Assignment

SPREADS = {
    "sites": "a share of the tokens at three sites",
    "blocks": "the same number of tokens in every block",
    "rates": "the same share of the tokens in every block",
    "list": "numbers of tokens that were published for every block, and what lies between them",
}


class Evidence(NamedTuple):
    """What a site knows about its N image tokens."""

    features: Float[Tensor, "batch tokens channels"]
    """what similarity is measured on: tokens or keys, as the configuration says"""
    importance: Float[Tensor, "batch tokens"]
    """the attention each token gets from the class token (or from all, where there is none)"""
    size: Float[Tensor, "batch tokens"]
    """how many patches each token stands for"""
    depth: int
    """how many blocks the model has"""
    block: int = 0
    """which of them the site is in, from 0"""
    padded: bool = False
    """whether some tokens are padding: they have size 0"""


@dataclass(frozen=True)
class Plan:
    """A way to choose. ``decide`` returns an assignment of N tokens to ``counts.tokens_out`` groups."""

    decide: Callable[[Evidence, Counts, BATConfig], Assignment]
    drops: bool
    """whether it loses tokens; then there is no grid to give back"""
    most: float = 1.0
    """the largest share of the tokens that it can do away with at one site"""
    combine: Callable[[Tensor, Evidence, Assignment], Tensor] | None = None
    """makes the features of the groups (B, M, C) of those of the tokens (B, N, C); their weighted mean by default"""
    published: Mapping[str, Any] = field(default_factory=dict)
    """the fields of BATConfig, besides the counts, with which it is what its paper describes; they cannot be changed"""
    spread: str = "sites"
    """where its paper takes tokens away; one of ``SPREADS``"""
    first: int = 0
    """the first block from which it does so, where it is in every block"""

    def __post_init__(self) -> None:
        if self.spread not in SPREADS:
            raise ValueError(f"spread must be one of {', '.join(SPREADS)}, got {self.spread!r}")
        object.__setattr__(self, "published", MappingProxyType(dict(self.published)))

    def __reduce__(self) -> tuple[Any, ...]:
        # a read-only view can be neither copied nor pickled
        return Plan, (self.decide, self.drops, self.most, self.combine, dict(self.published), self.spread, self.first)
