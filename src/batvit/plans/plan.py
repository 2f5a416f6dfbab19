"""What a plan is given and what it returns."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from functools import partial
from types import MappingProxyType
from typing import Any, NamedTuple

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from batvit.checks import check_choice
from batvit.config import BATConfig
from batvit.core import Assignment

SITE_RULES = {
    "sites": "a share of the tokens at three sites",
    "blocks": "the same number of tokens in every block",
    "rates": "the same share of the tokens in every block",
    "list": "numbers of tokens that were published for every block, and what lies between them",
}


class Counts(NamedTuple):
    """What happens at one site: ``tokens_out = attentive - pairs + centres``.

    Examples:
        >>> model = timm.create_model("vit_tiny_patch16_224").eval()
        >>> with batvit.trace(batvit.patch(model, keep_rate=0.7)) as trace:
        ...     logits = model(torch.zeros(1, 3, 224, 224))
        >>> trace.sites[0].counts
        Counts(block=3, tokens_in=196, attentive=78, pairs=7, centres=72, tokens_out=143)
    """

    block: int
    tokens_in: int
    attentive: int
    pairs: int
    centres: int
    tokens_out: int


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
    """A way to choose which tokens stay, and which join which."""

    decide: Callable[[Evidence, Counts, BATConfig], Assignment]
    """returns an assignment of N tokens to ``counts.tokens_out`` groups"""
    drops: bool
    """whether it loses tokens; then there is no grid to give back"""
    max_reduction: float = 1.0
    """the largest share of the tokens that it can do away with at one site"""
    combine: Callable[[Tensor, Evidence, Assignment], Tensor] | None = None
    """makes the features of the groups (B, M, C) of those of the tokens (B, N, C); their weighted
    mean by default"""
    paper_fields: Mapping[str, Any] = field(default_factory=dict)
    """the fields of BATConfig, besides the counts, with which it is what its paper describes; they
    cannot be changed"""
    site_rule: str = "sites"
    """where its paper takes tokens away; one of ``SITE_RULES``"""
    first_block: int = 0
    """the first block from which it does so, where it is in every block"""
    split: Callable[[BATConfig, int, int, int], Counts] | None = None
    """splits what goes on at a site into attentive tokens, pairs and centres
    (:func:`batvit.plans.bat.split`); None where a plan knows no such parts"""

    def __post_init__(self) -> None:
        check_choice("site_rule", self.site_rule, tuple(SITE_RULES))
        object.__setattr__(self, "paper_fields", MappingProxyType(dict(self.paper_fields)))

    def __reduce__(self) -> tuple[Any, ...]:
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        # a read-only view can be neither copied nor pickled
        values["paper_fields"] = dict(self.paper_fields)
        return partial(Plan, **values), ()


def put(
    index: Int64[Tensor, "batch tokens"], values: Int64[Tensor, "batch some"], places: slice
) -> Int64[Tensor, "batch tokens"]:
    """Return an index with other values at some places.

    By a scatter: what is written in place fails where ``torch.func.vmap`` looks, and OpenVINO knows
    no ``slice_scatter``.
    """
    positions = torch.arange(index.shape[1], device=index.device)[places]
    return index.scatter(1, positions.expand_as(values), values)
