"""Step 3: cluster the inattentive tokens by simplified density peaks (SCE-MAE, equations 1-3)."""

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from batvit.core.assignment import Assignment
from batvit.core.decouple import falling_order, ranks, take
from batvit.core.precision import products

HUGE = 1e30


def cluster(
    features: Float[Tensor, "batch tokens channels"],
    centres: int,
    *,
    neighbours: int | None = None,
    prior: Float[Tensor, "batch tokens"] | None = None,
    real: Bool[Tensor, "batch tokens"] | None = None,
) -> Assignment:
    """Run one pass of density peaks.

    Centres are dense, and far from denser tokens; every other token joins the nearest centre.

    Args:
        features: (B, I, C).
        centres: how many clusters, 1 to I.
        neighbours: take the density over this many nearest tokens, itself included; over all of
            them when None.
        prior: what the logarithm of each token's score, rho_i delta_i, is raised by.
        real: False where a token is padding: it is nobody's neighbour, and no centre while there
            are real ones.

    Returns:
        I tokens to ``centres`` groups, total and onto. Equal scores and equal distances go to the
        lower index.

    Raises:
        ValueError: if there are fewer tokens than centres.
    """
    if not 1 <= centres <= features.shape[1]:
        raise ValueError(
            f"centres must lie in 1 .. {features.shape[1]}, the number of tokens, got {centres}"
        )
    squared = squared_distances(features, real)
    if real is not None:
        squared = squared.masked_fill(~real.unsqueeze(1), torch.inf)
    log_rho = log_density(
        squared, width=features.shape[-1], neighbours=neighbours, padded=real is not None
    )
    if real is not None:
        log_rho = log_rho.masked_fill(~real, -torch.inf)
    # the largest rho_i * delta_i, in logarithms: of tokens that are far apart, all rho_i would
    # underflow to one tie
    score = torch.add(log_rho, separation(squared, log_rho).log(), alpha=0.5)
    if prior is not None:
        score = score + prior
    centre = falling_order(score)[:, :centres]
    return Assignment(join_nearest(squared, centre), centres, drops=False)


def join_nearest(
    squared: Float[Tensor, "batch tokens tokens"], centre: Int64[Tensor, "batch clusters"]
) -> Int64[Tensor, "batch tokens"]:
    """Return the cluster of each token: that of its nearest centre.

    A centre is in its own, even where another one lies on the same spot.
    """
    itself = torch.arange(centre.shape[1], device=centre.device).expand_as(centre)
    return take(squared, centre).min(dim=1).indices.scatter_(1, centre, itself)


def squared_distances(
    features: Float[Tensor, "batch tokens channels"],
    real: Bool[Tensor, "batch tokens"] | None = None,
) -> Float[Tensor, "batch tokens tokens"]:
    """Return ||t_i - t_j||^2, by one matrix product, so that a FLOP counter sees it.

    Off by the rounding of that product: in bfloat16 by at most about 1/128 of the largest squared
    distance from the mean token, whatever all tokens have in common; in float32 by some 1e-7 of the
    largest squared length.

    Args:
        features: (B, N, C).
        real: False where a token is padding; there features must be zero.
    """
    if features.dtype == torch.bfloat16:
        # its product is rounded, and what all tokens have in common would leave nothing of their
        # differences. float32 has digits to spare, and stays as it is: tokens that are equally far
        # apart by few digits stay so
        mean = features.mean(dim=1, keepdim=True, dtype=torch.float32)
        if real is not None:
            mean = mean * (real.shape[1] / real.sum(dim=1).clamp(min=1)).view(-1, 1, 1)
        features = features - mean.bfloat16()
    product = products(features, features)
    norm = _diagonal(product)
    # the norms are added up first, so that rounding leaves it symmetric, and two tokens that are
    # each other's nearest have one density
    return (norm.unsqueeze(2) + norm.unsqueeze(1)).sub_(product, alpha=2).clamp_(min=0)


def log_density(
    squared: Float[Tensor, "batch tokens tokens"],
    *,
    width: int,
    neighbours: int | None,
    padded: bool = False,
) -> Float[Tensor, "batch tokens"]:
    """Return the logarithm of rho_i = exp(-mean_j ||t_i - t_j||^2 / C).

    The published sum is printed without the minus and underflows in float32; hence the mean, scaled
    by the width C.

    Args:
        squared: squared distances; the distance of each token to itself may be overwritten, which
            no later step reads.
        width: C.
        neighbours: take the mean over this many nearest tokens; over all of them when None.
        padded: whether some tokens are padding: infinitely far away, they do not count.
    """
    tokens = squared.shape[-1]
    # exporters that take a graph of torch.jit.trace lose what is written into a view
    tracing: bool = torch.jit.is_tracing()  # type: ignore[attr-defined, no-untyped-call]
    if neighbours == 2 < tokens and not tracing:
        # itself, at distance 0, and the nearest other: a minimum is ten times cheaper than a topk
        _diagonal(squared).fill_(torch.inf)
        return squared.amin(dim=-1) / (-width * neighbours)
    nearest = squared
    if neighbours is not None and neighbours < tokens:
        nearest = squared.topk(neighbours, dim=-1, largest=False).values
    if not padded:
        return nearest.sum(dim=-1) / (-width * nearest.shape[-1])
    real = nearest.isfinite()
    return nearest.where(real, 0).sum(dim=-1) / (-width * real.sum(dim=-1).clamp(min=1))


def separation(
    squared: Float[Tensor, "batch tokens tokens"], log_density: Float[Tensor, "batch tokens"]
) -> Float[Tensor, "batch tokens"]:
    """Return delta_i^2, the least ||t_i - t_j||^2 of all denser j.

    Of two equally dense tokens that of lower index counts as denser. For the densest token it is a
    huge number: its published value, max_j ||t_i - t_j||, puts it first among the centres just the
    same, as no other rho or delta can be larger. It stays the first with any prior above -30.
    """
    if torch.compiler.is_compiling():
        # in a graph comparisons become one operation with what follows, which a sort does not
        return torch.where(_denser(log_density), squared, HUGE).amin(dim=2)
    rank = ranks(falling_order(log_density)).int()
    # below every distance where j is denser than i, above where it is not: cheaper than a mask.
    # integers are subtracted, which loses no digit in any type
    barrier = (rank.unsqueeze(1) - rank.unsqueeze(2)).to(squared.dtype).mul_(HUGE).add_(HUGE / 2)
    return torch.maximum(squared, barrier).amin(dim=2)


def _denser(log_density: Float[Tensor, "batch tokens"]) -> Bool[Tensor, "batch tokens tokens"]:
    """Return whether token j is denser than token i, at [b, i, j]."""
    other = log_density.unsqueeze(1)
    own = log_density.unsqueeze(2)
    place = torch.arange(log_density.shape[1], device=log_density.device)
    return (other > own) | ((other == own) & (place < place.unsqueeze(1)))


def _diagonal(square: Float[Tensor, "batch tokens tokens"]) -> Float[Tensor, "batch tokens"]:
    """Return a view of the diagonals of matrices that lie in one piece."""
    return square.view(square.shape[0], square.shape[1] ** 2)[:, :: square.shape[1] + 1]
