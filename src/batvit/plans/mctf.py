"""Multi-criteria token fusion (Lee, Choi, Kim, CVPR 2024, section 3.2): alike, of little information, and small.

The attraction of two tokens is the product of three criteria, each to the power of its temperature: similarity
(cos + 1) / 2, informativeness 1 / (a_i a_j), and size 1 / (s_i s_j). Matching runs both ways: half of the merges go from every
second token into the others, then, with these fused and weighed anew, the rest go back into what is left of the first. A fused
token has the mean feature by attention times size, and the sum of the attention and of the sizes. Where both passes meet in one
token, its feature is the mean of all its members by their own attention times size.

Published with the attention of the next block (one-step-ahead attention, section 3.3), averaged over all queries, and in every
block but the first. A site knows no later block: here it is the current attention of the class token.
"""

import torch
from jaxtyping import Float
from torch import Tensor

from batvit.config.config import BATConfig
from batvit.core import Assignment, merge, sum_by_group
from batvit.core.match import cosines, join_partners
from batvit.plans.plan import Counts, Evidence

OF_SIMILARITY, OF_INFORMATION, OF_SIZE = 1.0, 1 / 20, 1 / 40
LEAST = 1e-6


def plan(evidence: Evidence, counts: Counts, config: BATConfig) -> Assignment:
    """Every second token into the others, and back: each time those most attracted go."""
    batch, tokens = evidence.importance.shape
    merges, others = tokens - counts.tokens_out, tokens // 2
    back = merges // 2
    if merges == 0:
        return Assignment.identity(batch, tokens, evidence.importance.device)
    index = (torch.arange(tokens, device=evidence.importance.device) // 2).repeat(batch, 1)
    index[:, 0::2] = join_partners(
        attractions(evidence, slice(0, None, 2), slice(1, None, 2)), merges - back
    )
    forth = Assignment(index, tokens - merges + back, drops=False)
    if back == 0:
        return forth
    # the others now lead, and what is left of the first follows
    index = (torch.arange(forth.groups, device=index.device) - others).repeat(batch, 1)
    index[:, :others] = join_partners(
        attractions(_fused(evidence, forth), slice(others), slice(others, None)), back
    )
    return forth.then(Assignment(index, counts.tokens_out, drops=False))


def attractions(
    evidence: Evidence, first: slice, second: slice
) -> Float[Tensor, "batch first second"]:
    """W_ij of each token of one part with each of another."""
    alone = (
        evidence.importance.float().clamp(min=LEAST) ** -OF_INFORMATION
        * evidence.size.clamp(min=1) ** -OF_SIZE
    )
    cosine = cosines(evidence.features[:, first], evidence.features[:, second])
    alike = ((cosine + 1) / 2).clamp(min=0) ** OF_SIMILARITY
    return alike * alone[:, first].unsqueeze(2) * alone[:, second].unsqueeze(1)


def _fused(evidence: Evidence, assignment: Assignment) -> Evidence:
    """What is known of the groups."""
    importance, size = evidence.importance.float(), evidence.size
    features = merge(evidence.features, assignment, importance * size)
    importance, size = sum_by_group(importance, assignment), sum_by_group(size, assignment)
    return Evidence(features, importance, size, evidence.depth, evidence.block, evidence.padded)
