"""Step 4: match similar attentive tokens in pairs."""

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from batvit.core.assignment import Assignment
from batvit.core.decouple import falling_order
from batvit.core.precision import products

NO_LENGTH = 1e-12


def match(
    features: Float[Tensor, "batch tokens channels"], pairs: int, *, method: str = "bipartite"
) -> Assignment:
    """Join the most similar tokens (cosine) in pairs; the others stay alone.

    Args:
        features: (B, A, C), by falling importance.
        pairs: how many merges, at most A // 2.
        method: ``bipartite`` lets every second token choose its most similar partner among the
            others, in one step; several may choose the same partner and make one larger group.
            ``greedy`` takes the most similar of all remaining pairs, removes both, and repeats:
            exact pairs, one step a pair.

    Returns:
        A tokens to ``A - pairs`` groups, total and onto.

    Raises:
        ValueError: if the method is unknown or there are more pairs than half the tokens.
    """
    if method not in MATCHINGS:
        raise ValueError(f"method must be one of {', '.join(MATCHINGS)}, got {method!r}")
    most = features.shape[1] // 2
    if not 0 <= pairs <= most:
        raise ValueError(f"pairs must lie in 0 .. {most}, half the number of tokens, got {pairs}")
    return MATCHINGS[method](features, pairs)


def cosines(
    a: Float[Tensor, "batch first channels"], b: Float[Tensor, "batch second channels"]
) -> Float[Tensor, "batch first second"]:
    """Return the cosine of each token of a with each of b; a token of no length is like no other.

    In float32; of bfloat16 tokens, whose products are rounded, with the digits of bfloat16 alone.
    """
    similarity = products(a, b)
    return similarity.div_(_lengths(a).unsqueeze(2)).div_(_lengths(b).unsqueeze(1))


def _lengths(x: Float[Tensor, "batch tokens channels"]) -> Float[Tensor, "batch tokens"]:
    wide = torch.promote_types(x.dtype, torch.float32)
    lengths: Tensor = torch.linalg.vector_norm(x, dim=2, dtype=wide)
    return lengths.clamp_(min=NO_LENGTH).float()


def _bipartite(features: Float[Tensor, "batch tokens channels"], pairs: int) -> Assignment:
    batch, tokens, _ = features.shape
    device = features.device
    if pairs == 0:
        return Assignment.identity(batch, tokens, device)
    # even ranks choose, odd ranks are chosen, and lead the groups 0, 1, 2, ...
    chosen = join_partners(cosines(features[:, 0::2], features[:, 1::2]), pairs)
    leads = torch.arange(chosen.shape[1], device=device).expand(batch, -1)
    index = torch.stack([chosen, leads], dim=2).flatten(1)[:, :tokens]
    return Assignment(index, tokens - pairs, drops=False)


def join_partners(
    similarity: Float[Tensor, "batch first second"], pairs: int
) -> Int64[Tensor, "batch first"]:
    """Return the group of each of the first.

    Those of highest similarity, ``pairs`` of them, join the most similar of the second; of equals
    that of lower index. Who stays alone has a group after those of the second.
    """
    best, partner = similarity.max(dim=2)
    alone = falling_order(best)[:, pairs:]
    _, first, second = similarity.shape
    further = torch.arange(second, second + first - pairs, device=best.device)
    return partner.scatter_(1, alone, further.expand_as(alone))


def _greedy(features: Float[Tensor, "batch tokens channels"], pairs: int) -> Assignment:
    batch, tokens, _ = features.shape
    device = features.device
    upper = torch.ones(tokens, tokens, dtype=torch.bool, device=device).triu(diagonal=1)
    similarity = cosines(features, features).masked_fill(~upper, -torch.inf)
    place = torch.arange(tokens, device=device)
    root = place.expand(batch, tokens)
    for _ in range(pairs):
        most_similar = similarity.flatten(1).argmax(dim=1, keepdim=True)
        first = most_similar // tokens
        second = most_similar % tokens
        root = torch.where(place == second, first, root)
        gone = (place == first) | (place == second)
        similarity = similarity.masked_fill(gone.unsqueeze(1) | gone.unsqueeze(2), -torch.inf)
    return Assignment(number(root), tokens - pairs, drops=False)


def number(root: Int64[Tensor, "batch tokens"]) -> Int64[Tensor, "batch tokens"]:
    """Number the groups in order of their first member, given that member for every token."""
    leads = root == torch.arange(root.shape[1], device=root.device)
    return (leads.long().cumsum(dim=1) - 1).gather(1, root)


MATCHINGS = {"bipartite": _bipartite, "greedy": _greedy}
