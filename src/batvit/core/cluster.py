"""Step 3: cluster the inattentive tokens by simplified density peaks (SCE-MAE, equations 1-3)."""

import torch
from jaxtyping import Float
from torch import Tensor

from batvit.core.assignment import Assignment
from batvit.core.precision import full_precision


def cluster(features: Float[Tensor, "batch tokens channels"], centres: int, *, neighbours: int | None = None) -> Assignment:
    """One pass of density peaks: choose centres that are dense and far from denser tokens; the rest join the nearest.

    Args:
        features: (B, I, C).
        centres: how many clusters, 1 to I.
        neighbours: take the density over this many nearest tokens, itself included; over all of them when None.

    Returns:
        I tokens to ``centres`` groups, total and onto. Equal scores and equal distances go to the lower index.

    Raises:
        ValueError: if there are fewer tokens than centres.
    """
    if not 1 <= centres <= features.shape[1]:
        raise ValueError(f"centres must lie in 1 .. {features.shape[1]}, the number of tokens, got {centres}")
    squared = squared_distances(features)
    log_rho = log_density(squared, width=features.shape[-1], neighbours=neighbours)
    # the largest rho_i * delta_i, in logarithms: far from one another, all rho_i would underflow to one tie
    score = log_rho + separation(squared, log_rho).log()
    centre = score.argsort(dim=1, descending=True, stable=True)[:, :centres]
    to_centre = squared.gather(2, centre.unsqueeze(1).expand(-1, squared.shape[1], -1))
    # a centre belongs to itself, even where another lies on the same spot
    itself = torch.arange(centres, device=centre.device).expand_as(centre)
    return Assignment(to_centre.argmin(dim=2).scatter(1, centre, itself), centres)


def squared_distances(features: Float[Tensor, "batch tokens channels"]) -> Float[Tensor, "batch tokens tokens"]:
    """||t_i - t_j||^2 in float32, by one matrix product, so that a FLOP counter sees it."""
    t = features.float()
    with full_precision(t):
        product = t @ t.transpose(1, 2)
    norm = t.square().sum(dim=-1)
    return (norm.unsqueeze(2) + norm.unsqueeze(1) - 2 * product).clamp(min=0)


def log_density(
    squared: Float[Tensor, "batch tokens tokens"], *, width: int, neighbours: int | None
) -> Float[Tensor, "batch tokens"]:
    """Logarithm of rho_i = exp(-mean_j ||t_i - t_j||^2 / C), over all tokens or the nearest ``neighbours``.

    The published sum is printed without the minus and underflows in float32; hence the mean, scaled by the width C.
    """
    if neighbours is not None and neighbours < squared.shape[-1]:
        squared = squared.topk(neighbours, dim=-1, largest=False).values
    return -squared.mean(dim=-1) / width


def separation(
    squared: Float[Tensor, "batch tokens tokens"], log_density: Float[Tensor, "batch tokens"]
) -> Float[Tensor, "batch tokens"]:
    """delta_i = min over denser j of ||t_i - t_j||; for the densest token max_j ||t_i - t_j||."""
    place = torch.arange(log_density.shape[1], device=log_density.device)
    higher, equal = log_density.unsqueeze(1) > log_density.unsqueeze(2), log_density.unsqueeze(1) == log_density.unsqueeze(2)
    # of two equally dense tokens the one of lower index counts as denser
    denser = higher | (equal & (place.unsqueeze(0) < place.unsqueeze(1)))
    nearest = squared.masked_fill(~denser, torch.inf).amin(dim=2)
    return torch.where(nearest.isinf(), squared.amax(dim=2), nearest).sqrt()
