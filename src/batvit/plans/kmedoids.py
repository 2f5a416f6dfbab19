"""K-medoids (Marin et al., "Token Pooling in Vision Transformers", WACV 2023, algorithm 2; Haurum et al., ICCVW 2023).

Begins with the tokens of highest importance; in each of three rounds every token joins its nearest medoid, and of each cluster
the member that is nearest to all others becomes the medoid. Marin et al. weight the distances by importance; here they
are equal, and a cluster goes on as the mean of its members by importance, not as its medoid.
"""

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from batvit.config import BATConfig, Counts
from batvit.core import Assignment
from batvit.core.cluster import HUGE, squared_distances
from batvit.core.decouple import decouple
from batvit.plans.plan import Evidence

ROUNDS = 3


def plan(evidence: Evidence, counts: Counts, config: BATConfig) -> Assignment:
    """As many clusters as tokens go on."""
    squared = squared_distances(evidence.features)
    medoid = decouple(evidence.importance)[:, : counts.tokens_out]
    for _ in range(ROUNDS):
        medoid = _middles(squared, _nearest(squared, medoid), counts.tokens_out)
    return Assignment(_nearest(squared, medoid), counts.tokens_out, drops=False)


def _nearest(
    squared: Float[Tensor, "batch tokens tokens"], medoid: Int64[Tensor, "batch clusters"]
) -> Int64[Tensor, "batch tokens"]:
    """The cluster of each token; a medoid's is its own, even where another lies on the same spot."""
    rows = squared.gather(1, medoid.unsqueeze(-1).expand(-1, -1, squared.shape[-1]))
    itself = torch.arange(medoid.shape[1], device=medoid.device).expand_as(medoid)
    return rows.min(dim=1).indices.scatter(1, medoid, itself)


def _middles(
    squared: Float[Tensor, "batch tokens tokens"], cluster: Int64[Tensor, "batch tokens"], clusters: int
) -> Int64[Tensor, "batch clusters"]:
    """Of each cluster the member with the least sum of distances to the members."""
    together = cluster.unsqueeze(1) == cluster.unsqueeze(2)
    cost = torch.where(together, squared.sqrt(), 0).sum(dim=2)
    members = cluster.unsqueeze(1) == torch.arange(clusters, device=cluster.device).view(1, -1, 1)
    return torch.where(members, cost.unsqueeze(1), HUGE).argmin(dim=2)
