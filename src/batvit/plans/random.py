"""Keep tokens by lot: the floor that every other way of dropping must stand on (Haurum et al., ICCVW 2023)."""

import torch
from torch import Tensor

from batvit.config.config import BATConfig
from batvit.core import Assignment
from batvit.plans.plan import Counts, Evidence
from batvit.plans.topk import keep

HALF, WORD = 16, 0xFFFFFFFF


def plan(evidence: Evidence, counts: Counts, config: BATConfig) -> Assignment:
    """The same lot for every image, another in every block."""
    batch, tokens = evidence.importance.shape
    places = torch.arange(tokens, device=evidence.importance.device)
    return keep(lot(places, counts.block).float().expand(batch, -1), counts.tokens_out)


def lot(places: Tensor, block: int) -> Tensor:
    """A number of 24 bits for every place: the finaliser of MurmurHash3, without a generator, so that it can be compiled."""
    mixed = (places + 1) * 0x9E3779B1 + block * 0x85EBCA6B & WORD
    for factor in (0x85EBCA6B, 0xC2B2AE35):
        mixed = (mixed ^ mixed >> HALF) * factor & WORD
    return mixed >> 8
