"""K-medoids (Marin et al., WACV 2023, algorithm 2; Haurum et al., ICCVW 2023).

The paper is "Token Pooling in Vision Transformers". Begins with the tokens of highest importance;
in each of three rounds every token joins its nearest medoid, and of each cluster the member that is
nearest to all others becomes the medoid. Marin et al. weight the distances by importance; here they
are equal, and a cluster goes on as the mean of its members by importance, not as its medoid.
"""

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from batvit.config import BATConfig
from batvit.core import Assignment
from batvit.core.cluster import HUGE, join_nearest, squared_distances
from batvit.core.decouple import decouple
from batvit.plans.plan import Counts, Evidence

ROUNDS = 3


def plan(evidence: Evidence, counts: Counts, config: BATConfig) -> Assignment:
    """Make as many clusters as tokens go on."""
    squared = squared_distances(evidence.features)
    medoid = decouple(evidence.importance)[:, : counts.tokens_out]
    for _ in range(ROUNDS):
        medoid = _middles(squared, join_nearest(squared, medoid), counts.tokens_out)
    return Assignment(join_nearest(squared, medoid), counts.tokens_out, drops=False)


def _middles(
    squared: Float[Tensor, "batch tokens tokens"],
    cluster: Int64[Tensor, "batch tokens"],
    clusters: int,
) -> Int64[Tensor, "batch clusters"]:
    """Return of each cluster the member with the least sum of distances to the members."""
    together = cluster.unsqueeze(1) == cluster.unsqueeze(2)
    cost = torch.where(together, squared.sqrt(), 0).sum(dim=2)
    members = cluster.unsqueeze(1) == torch.arange(clusters, device=cluster.device).view(1, -1, 1)
    return torch.where(members, cost.unsqueeze(1), HUGE).argmin(dim=2)
