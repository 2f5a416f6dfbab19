"""Keep tokens by lot: what every other way of dropping must beat (Haurum et al., ICCVW 2023)."""

from typing import Any

import torch

from batvit.config import BATConfig
from batvit.core import Assignment
from batvit.plans.plan import Counts, Evidence
from batvit.plans.topk import keep

HALF_WORD = 16
WORD_MASK = 0xFFFFFFFF


def plan(evidence: Evidence, counts: Counts, config: BATConfig) -> Assignment:
    """Keep the same places in every image, others in every block."""
    batch = evidence.importance.shape[0]
    device = evidence.importance.device
    if torch.jit.is_tracing():  # type: ignore[attr-defined,no-untyped-call]
        # constants of the graph: OpenVINO would reckon in 32 bits
        lots = torch.tensor(
            [lot(place, counts.block) for place in range(counts.tokens_in)], device=device
        )
    else:
        lots = lot(torch.arange(counts.tokens_in, device=device), counts.block)
    return keep(lots.float().expand(batch, -1), counts.tokens_out)


def lot(places: Any, block: int) -> Any:
    """Return a number of 24 bits for a place, or a tensor of places: the finaliser of MurmurHash3.

    Without a generator, so that it can be compiled.
    """
    mixed = ((places + 1) * 0x9E3779B1 + block * 0x85EBCA6B) & WORD_MASK
    for factor in (0x85EBCA6B, 0xC2B2AE35):
        mixed = ((mixed ^ (mixed >> HALF_WORD)) * factor) & WORD_MASK
    return mixed >> 8
