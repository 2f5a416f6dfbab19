"""Beyond Attentive Tokens, steps 2 to 4: decouple, match, cluster. No arithmetic here."""

from jaxtyping import Float
from torch import Tensor

from batvit.core.assignment import Assignment
from batvit.core.cluster import cluster
from batvit.core.decouple import decouple, take
from batvit.core.match import match


def assign(
    features: Float[Tensor, "batch tokens channels"],
    importance: Float[Tensor, "batch tokens"],
    *,
    attentive: int,
    pairs: int,
    centres: int,
    matching: str = "bipartite",
    neighbours: int | None = None,
) -> Assignment:
    """Decide what becomes of each of the N image tokens.

    No token is lost; groups = attentive - pairs + centres; the attentive groups come first, then the clusters.

    Args:
        features: (B, N, C), what similarity is measured on.
        importance: (B, N), the class attention.
        attentive, pairs, centres: counts, as :meth:`batvit.BATConfig.schedule` gives them.
        matching, neighbours: see :func:`match` and :func:`cluster`.
    """
    order = decouple(importance)
    features = take(features, order)
    parts = []
    if attentive:
        parts.append(match(features[:, :attentive], pairs, method=matching))
    if centres:
        parts.append(cluster(features[:, attentive:], centres, neighbours=neighbours))
    return Assignment.join(order, *parts)
