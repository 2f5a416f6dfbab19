"""Token merging (Bolya et al., ToMe, ICLR 2023, section 3): bipartite soft matching.

All image tokens are matched, in the order of the image. The published method is this plan in every
block, r tokens fewer each time, with ``similarity="keys"``, ``weight="size"`` and
``size_aware=True`` (its proportional attention, equation 1). Tokens are dealt to the two sets as if
one class token, which is never merged, stood before them; of what goes on, the unmerged of the
first set lead, as in the published algorithm.
"""

import torch
from jaxtyping import Float
from torch import Tensor

from batvit.config import BATConfig
from batvit.core import Assignment
from batvit.core.decouple import falling_order
from batvit.core.match import cosines
from batvit.plans.plan import Counts, Evidence, put

FIRST = slice(1, None, 2)
"""the tokens that may join another"""
SECOND = slice(0, None, 2)
"""the tokens that may be joined"""


def plan(evidence: Evidence, counts: Counts, config: BATConfig) -> Assignment:
    """Let every second token join its most similar other one; the most similar pairs are merged."""
    return bipartite_soft_matching(evidence.features, counts.tokens_in - counts.tokens_out)


def bipartite_soft_matching(features: Float[Tensor, "batch tokens channels"], r: int) -> Assignment:
    """Merge ``r`` tokens of the first set, at most all of it.

    The groups are those who stay alone there, then the second set.
    """
    batch, tokens, _ = features.shape
    alone = tokens // 2 - r
    # token 2i leads the i-th group after those who stay alone
    index = (torch.arange(tokens, device=features.device) // 2 + alone).repeat(batch, 1)
    if tokens > 1:
        best, partner = cosines(features[:, FIRST], features[:, SECOND]).max(dim=2)
        by_similarity = falling_order(best)
        stay = by_similarity[:, r:].sort(dim=1).values
        places = torch.arange(alone, device=features.device).expand_as(stay)
        groups = (partner + alone).scatter(1, stay, places)
        index = put(index, groups, FIRST)
    return Assignment(index, tokens - r, drops=False)
