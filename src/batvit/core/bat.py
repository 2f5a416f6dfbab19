"""Beyond Attentive Tokens, steps 2 to 4: decouple, match, cluster. No arithmetic here."""

from jaxtyping import Bool, Float
from torch import Tensor

from batvit.core.assignment import Assignment
from batvit.core.cluster import cluster
from batvit.core.decouple import decouple, log_importance, take
from batvit.core.match import match


def assign(
    features: Float[Tensor, "batch tokens channels"],
    importance: Float[Tensor, "batch tokens"],
    *,
    attentive: int,
    pairs: int,
    centres: int,
    importance_power: float = 0.0,
    matching: str = "bipartite",
    neighbours: int | None = None,
    real: Bool[Tensor, "batch tokens"] | None = None,
) -> Assignment:
    """Decide what becomes of each of the N image tokens.

    No token is lost; groups = attentive - pairs + centres; the attentive groups come first, then
    the clusters.

    Args:
        features: (B, N, C), what similarity is measured on.
        importance: (B, N), the class attention.
        attentive, pairs, centres: counts, as :meth:`batvit.BATConfig.schedule` gives them.
        importance_power: multiply the score of a centre with the token's importance to this power.
        matching, neighbours: see :func:`match` and :func:`cluster`.
        real: False where a token is padding. It has no importance, and so is clustered unless all
            real tokens are attentive.
    """
    order = decouple(importance)
    features = take(features, order)
    parts = []
    if attentive:
        parts.append(match(features[:, :attentive], pairs, method=matching))
    if centres:
        prior = None
        if importance_power:
            prior = log_importance(importance, order[:, attentive:], importance_power)
        if real is not None:
            real = real.gather(1, order)[:, attentive:]
        clustered = cluster(
            features[:, attentive:], centres, neighbours=neighbours, prior=prior, real=real
        )
        parts.append(clustered)
    return Assignment.join(order, *parts)
