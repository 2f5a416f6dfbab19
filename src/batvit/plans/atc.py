"""Agglomerative token clustering (Haurum et al., ECCV 2024, section 3): join the two nearest clusters until enough are left.

The distance of two tokens is 1 - cosine, that of two clusters the average over their pairs of tokens (average linkage), the
largest of these distances (complete linkage) or the least (single linkage). It takes one step a join: a peer to compare with,
not a fast one.
"""

from collections.abc import Callable
from functools import partial

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from batvit.config.config import BATConfig
from batvit.core import Assignment
from batvit.core.decouple import take
from batvit.core.match import cosines, number
from batvit.plans.plan import Counts, Evidence

# what the similarity of a cluster becomes, of those of its two halves and their shares of its members
Linkage = Callable[[Tensor, Tensor, Tensor], Tensor]


def average(first: Tensor, second: Tensor, share: Tensor) -> Tensor:
    """Of all pairs of members."""
    return share * first + (1 - share) * second


def complete(first: Tensor, second: Tensor, share: Tensor) -> Tensor:
    """Of the two members least alike."""
    return torch.minimum(first, second)


def single(first: Tensor, second: Tensor, share: Tensor) -> Tensor:
    """Of the two members most alike."""
    return torch.maximum(first, second)


def plan(
    evidence: Evidence, counts: Counts, config: BATConfig, *, linkage: Linkage = average
) -> Assignment:
    """As many joins as tokens go, whatever an image shows."""
    batch, tokens = evidence.importance.shape
    similarity = cosines(evidence.features, evidence.features)
    itself = torch.eye(tokens, dtype=torch.bool, device=similarity.device)
    similarity = similarity.masked_fill(itself, -torch.inf)
    members, root = (
        torch.ones_like(similarity[:, 0]),
        torch.arange(tokens, device=similarity.device).expand(batch, tokens),
    )
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
    """The most similar two clusters become one, under the number of the first; of equals those of lowest number."""
    tokens = root.shape[1]
    pair = similarity.flatten(1).argmax(dim=1, keepdim=True)
    first, second = pair // tokens, pair % tokens
    of_first, of_second = members.gather(1, first), members.gather(1, second)
    rows = take(similarity, torch.cat((first, second), dim=1))
    mixed = linkage(rows[:, 0], rows[:, 1], of_first / (of_first + of_second))
    place = torch.arange(tokens, device=root.device)
    is_first, is_second = place == first, place == second
    mixed = mixed.masked_fill(is_first | is_second, -torch.inf)
    similarity = torch.where(is_first.unsqueeze(2), mixed.unsqueeze(1), similarity)
    similarity = torch.where(is_first.unsqueeze(1), mixed.unsqueeze(2), similarity)
    similarity = similarity.masked_fill(is_second.unsqueeze(2) | is_second.unsqueeze(1), -torch.inf)
    members = torch.where(is_first, of_first + of_second, members)
    return similarity, members, torch.where(root == second, first, root)


plan_complete, plan_single = partial(plan, linkage=complete), partial(plan, linkage=single)
