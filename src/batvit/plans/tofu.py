"""Token fusion (Kim et al., ToFu, WACV 2024, section 3).

The paper is "Token Fusion: Bridging the Gap between Token Pruning and Token Merging". The pairs are
those of ToMe. Where the model answers to mixed tokens least linearly, in its first blocks, a pair
becomes the token that was chosen, and the feature of the other is lost (pruned merging); later it
takes the direction of the mean of its members and the largest of their norms (MLERP). The paper
sets the boundary for each model; here it is half of the depth.
"""

import torch
from jaxtyping import Float
from torch import Tensor

from batvit.config import BATConfig
from batvit.core import Assignment, merge
from batvit.core.match import NO_LENGTH
from batvit.plans.plan import Counts, Evidence
from batvit.plans.tome import bipartite_soft_matching

# a share that float32 does not see, and yet more than that of padding, which has size 0
LOST = 1e-20


def plan(evidence: Evidence, counts: Counts, config: BATConfig) -> Assignment:
    """Let every second token join its most similar other one; the most similar pairs are merged."""
    return bipartite_soft_matching(evidence.features, counts.tokens_in - counts.tokens_out)


def combine(
    x: Float[Tensor, "batch tokens channels"], evidence: Evidence, assignment: Assignment
) -> Float[Tensor, "batch groups channels"]:
    """Return the chosen token of each group in the first half of the blocks, MLERP in the second.

    A token alone stays as it is.
    """
    place = torch.arange(x.shape[1], device=x.device)
    # who stays alone leads the groups; the chosen follow
    joins = (place % 2 == 1) & (assignment.index >= assignment.groups - (x.shape[1] + 1) // 2)
    if evidence.block < evidence.depth // 2:
        return merge(x, assignment, torch.where(joins, LOST, 1.0) * evidence.size)
    wide = torch.promote_types(x.dtype, torch.float32)
    mean: Tensor = merge(x, assignment, evidence.size).to(wide)
    norm = torch.where(evidence.size > 0, torch.linalg.vector_norm(x, dim=2, dtype=wide), 0)
    largest = torch.zeros_like(mean[:, :, 0]).scatter_reduce(1, assignment.index, norm, "amax")
    length = torch.linalg.vector_norm(mean, dim=2).clamp(min=NO_LENGTH)
    scaled: Tensor = mean * (largest / length).unsqueeze(2)
    return scaled.to(x.dtype)
