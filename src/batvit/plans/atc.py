"""Agglomerative token clustering (Haurum et al., ECCV 2024, section 3).

The two nearest clusters are joined until few enough are left. The distance of two tokens is
1 - cosine, that of two clusters the average over their pairs of tokens (average linkage), the
largest of these distances (complete linkage) or the least (single linkage). It takes one step a
join: a peer to compare with, not a fast one.
"""

from collections.abc import Callable
from functools import partial

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from batvit.config import BATConfig
from batvit.core import Assignment
from batvit.core.decouple import take
from batvit.core.match import cosines, number
from batvit.plans.plan import Counts, Evidence

Linkage = Callable[[Tensor, Tensor, Tensor], Tensor]
"""the similarity of a cluster, of those of its two halves and the share of members of the first"""


def average(first: Tensor, second: Tensor, share: Tensor) -> Tensor:
    """Average over all pairs of members."""
    return share * first + (1 - share) * second


def complete(first: Tensor, second: Tensor, share: Tensor) -> Tensor:
    """Take the two members least alike."""
    return torch.minimum(first, second)


def single(first: Tensor, second: Tensor, share: Tensor) -> Tensor:
    """Take the two members most alike."""
    return torch.maximum(first, second)


def plan(
    evidence: Evidence, counts: Counts, config: BATConfig, *, linkage: Linkage = average
) -> Assignment:
    """Make as many joins as tokens go, whatever an image shows."""
    batch, tokens = evidence.importance.shape
    similarity = cosines(evidence.features, evidence.features)
    itself = torch.eye(tokens, dtype=torch.bool, device=similarity.device)
    similarity = similarity.masked_fill(itself, -torch.inf)
    members = torch.ones_like(similarity[:, 0])
    root = torch.arange(tokens, device=similarity.device).expand(batch, tokens)
    for _ in range(tokens - counts.tokens_out):
        similarity, members, root = _join(similarity, members, root, linkage)
    return Assignment(number(root), counts.tokens_out, drops=False)


def _join(
    similarity: Float[Tensor, "batch tokens tokens"],
    members: Float[Tensor, "batch tokens"],
    root: Int64[Tensor, "batch tokens"],
    linkage: Linkage,
) -> tuple[
    Float[Tensor, "batch tokens tokens"],
    Float[Tensor, "batch tokens"],
    Int64[Tensor, "batch tokens"],
]:
    """Join the most similar two clusters, under the number of the first.

    Of equals those of lowest number.

    Args:
        similarity: of clusters, -inf for a cluster to itself and for what is no cluster any more.
        members: how many tokens each cluster holds.
        root: of each token its cluster, numbered by its first member.
        linkage: see :data:`Linkage`.

    Returns:
        The same three after the join.
    """
    tokens = root.shape[1]
    pair = similarity.flatten(1).argmax(dim=1, keepdim=True)
    first = pair // tokens
    second = pair % tokens
    size_of_first = members.gather(1, first)
    size_of_both = size_of_first + members.gather(1, second)
    rows = take(similarity, torch.cat((first, second), dim=1))
    joined = linkage(rows[:, 0], rows[:, 1], size_of_first / size_of_both)
    place = torch.arange(tokens, device=root.device)
    is_first = place == first
    is_second = place == second
    joined = joined.masked_fill(is_first | is_second, -torch.inf)
    # the joined cluster takes row and column of the first; those of the second are empty from now
    similarity = torch.where(is_first.unsqueeze(2), joined.unsqueeze(1), similarity)
    similarity = torch.where(is_first.unsqueeze(1), joined.unsqueeze(2), similarity)
    similarity = similarity.masked_fill(is_second.unsqueeze(2) | is_second.unsqueeze(1), -torch.inf)
    members = torch.where(is_first, size_of_both, members)
    root = torch.where(root == second, first, root)
    return similarity, members, root


plan_complete = partial(plan, linkage=complete)
plan_single = partial(plan, linkage=single)
