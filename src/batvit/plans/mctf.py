"""Multi-criteria token fusion (Lee, Choi, Kim, CVPR 2024, section 3.2).

Tokens are fused that are alike, of little information, and small. The attraction of two tokens is
the product of three criteria, each to the power of its temperature: similarity (cos + 1) / 2,
informativeness 1 / (a_i a_j), and size 1 / (s_i s_j). Matching runs both ways: half of the merges
go from every second token into the others, then, with these fused and weighted anew, the rest go
back into what is left of the first. A fused token has the mean feature by attention times size, and
the sum of the attention and of the sizes. Where both passes meet in one token, its feature is the
mean of all its members by their own attention times size.

Published with the attention of the next block (one-step-ahead attention, section 3.3), averaged
over all queries, and in every block but the first. A site knows no later block: here it is the
current attention of the class token.
"""

import torch
from jaxtyping import Float
from torch import Tensor

from batvit.config import BATConfig
from batvit.core import Assignment, merge, sum_by_group
from batvit.core.match import cosines, join_partners
from batvit.plans.plan import Counts, Evidence, put

SIMILARITY_POWER = 1.0
INFORMATION_POWER = 1 / 20
SIZE_POWER = 1 / 40
LEAST = 1e-6


def plan(evidence: Evidence, counts: Counts, config: BATConfig) -> Assignment:
    """Merge every second token into the others, and back: each time those most attracted go."""
    batch, tokens = evidence.importance.shape
    device = evidence.importance.device
    merges = tokens - counts.tokens_out
    merges_back = merges // 2
    if merges == 0:
        return Assignment.identity(batch, tokens, device)
    index = (torch.arange(tokens, device=device) // 2).repeat(batch, 1)
    attraction = attractions(evidence, slice(0, None, 2), slice(1, None, 2))
    partner = join_partners(attraction, merges - merges_back)
    index = put(index, partner, slice(None, None, 2))
    forth = Assignment(index, tokens - merges + merges_back, drops=False)
    if merges_back == 0:
        return forth
    # the others now lead, and what is left of the first follows
    others = tokens // 2
    index = (torch.arange(forth.groups, device=device) - others).repeat(batch, 1)
    attraction = attractions(_fused(evidence, forth), slice(others), slice(others, None))
    index = put(index, join_partners(attraction, merges_back), slice(others))
    return forth.then(Assignment(index, counts.tokens_out, drops=False))


def attractions(
    evidence: Evidence, first: slice, second: slice
) -> Float[Tensor, "batch first second"]:
    """Return W_ij, the attraction of each token of one part and each of another."""
    information = evidence.importance.float().clamp(min=LEAST) ** -INFORMATION_POWER
    size = evidence.size.clamp(min=1) ** -SIZE_POWER
    # what a token brings whatever its partner
    own = information * size
    cosine = cosines(evidence.features[:, first], evidence.features[:, second])
    similarity = ((cosine + 1) / 2).clamp(min=0) ** SIMILARITY_POWER
    return similarity * own[:, first].unsqueeze(2) * own[:, second].unsqueeze(1)


def _fused(evidence: Evidence, assignment: Assignment) -> Evidence:
    """Return the evidence of the groups."""
    importance = evidence.importance.float()
    return evidence._replace(
        features=merge(evidence.features, assignment, importance * evidence.size),
        importance=sum_by_group(importance, assignment),
        size=sum_by_group(evidence.size, assignment),
    )
