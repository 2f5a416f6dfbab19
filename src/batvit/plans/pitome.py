"""Protect informative tokens before merging (Tran et al., PiToMe, NeurIPS 2024).

Equation 4 and algorithm 1. The published method is this plan in every block, the same share of the
tokens left at each, with ``similarity="keys"``, ``weight="size"`` and ``size_aware=True``.
"""

import torch
from jaxtyping import Float
from torch import Tensor

from batvit.config import BATConfig
from batvit.core import Assignment
from batvit.core.decouple import decouple, take
from batvit.core.match import cosines
from batvit.plans.plan import Counts, Evidence, put

HIGHEST_MARGIN = 0.9


def plan(evidence: Evidence, counts: Counts, config: BATConfig) -> Assignment:
    """Take the tokens with most energy, which are like many others; every second one joins another.

    Each joins the most similar among the rest of them.
    """
    batch, tokens = evidence.importance.shape
    merges = tokens - counts.tokens_out
    margin = HIGHEST_MARGIN * (1 - counts.block / evidence.depth)
    order = decouple(energy(evidence.features, margin=margin))
    redundant = take(evidence.features, order[:, : 2 * merges])
    index = (torch.arange(2 * merges, device=order.device) // 2).repeat(batch, 1)
    if merges:
        partner = cosines(redundant[:, 0::2], redundant[:, 1::2]).argmax(dim=2)
        index = put(index, partner, slice(None, None, 2))
    protected = Assignment.identity(batch, tokens - 2 * merges, order.device)
    return Assignment.join(order, Assignment(index, merges, drops=False), protected)


def energy(
    features: Float[Tensor, "batch tokens channels"], *, margin: float
) -> Float[Tensor, "batch tokens"]:
    """Return E_i, how much token i is like the others.

    The mean over j of cos(i, j) where it is at least the margin m, of exp(cos(i, j) - m) - 1 where
    it is less.
    """
    similarity = cosines(features, features)
    return torch.where(similarity >= margin, similarity, (similarity - margin).expm1()).mean(dim=2)
