"""Step 5: the only place where features move."""

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from batvit.core.assignment import Assignment
from batvit.core.decouple import take
from batvit.core.precision import full_precision

NO_WEIGHT = 1e-30


def merge(
    x: Float[Tensor, "batch tokens channels"],
    assignment: Assignment,
    weight: Float[Tensor, "batch tokens"] | None = None,
    *,
    keep_norm: bool = False,
) -> Float[Tensor, "batch groups channels"]:
    """Each group becomes the weighted mean of its members, y_g = sum_i w_i x_i / sum_i w_i.

    Args:
        x: (B, N, C), any floating type; sums are taken in float32.
        assignment: N tokens to M groups.
        weight: (B, N), non-negative; equal weights when None. A group of zero weight is a plain mean, never 0/0.
        keep_norm: scale y_g to the length sum_i w_i ‖x_i‖ / sum_i w_i. A mean of unlike tokens is shorter than they are, and
            what later blocks add to it would weigh more. (MLERP of ToFu, WACV 2024, takes the largest length.)

    Returns:
        (B, M, C) in the type of ``x``. Gradients flow into ``x`` and ``weight``.

    Raises:
        ValueError: if ``x`` is not of the assignment's batch and number of tokens.
    """
    _check(x, assignment.tokens, assignment)
    # so little that it counts in a group without weight alone, which so falls back to equal weights
    weight = (
        torch.ones_like(x[..., 0], dtype=torch.float32)
        if weight is None
        else weight.float().clamp(min=NO_WEIGHT)
    )
    total = sum_by_group(weight, assignment)
    group = assignment.index.clamp(min=0) if assignment.drops else assignment.index
    share = weight / total.gather(1, group)
    mean = _weighted(x, share, group, assignment)
    if not keep_norm:
        return mean
    lengths: Tensor = sum_by_group(share * _norm(x), assignment)
    wide = mean.to(torch.promote_types(x.dtype, torch.float32))
    # a token that stays alone has the length it had, and stays as it is
    longer = lengths / _norm(wide).clamp(min=NO_WEIGHT)
    return (wide * longer.unsqueeze(-1)).to(x.dtype)


def _norm(x: Float[Tensor, "batch tokens channels"]) -> Float[Tensor, "batch tokens"]:
    lengths: Tensor = torch.linalg.vector_norm(
        x, dim=2, dtype=torch.promote_types(x.dtype, torch.float32)
    )
    return lengths.float()


def _weighted(
    x: Float[Tensor, "batch tokens channels"],
    share: Float[Tensor, "batch tokens"],
    group: Int64[Tensor, "batch tokens"],
    assignment: Assignment,
) -> Float[Tensor, "batch groups channels"]:
    """The sum of the members of each group, each times its share."""
    if not by_product(x):
        return sum_by_group(x.float() * share.unsqueeze(-1), assignment).to(x.dtype)
    if assignment.drops:
        share = torch.where(assignment.kept, share, 0)
    shares = x.new_zeros(assignment.batch, assignment.groups, assignment.tokens)
    shares.scatter_(1, group.unsqueeze(1), share.to(x.dtype).unsqueeze(1))
    with full_precision(x):
        return shares @ x


def unmerge(
    y: Float[Tensor, "batch groups channels"], assignment: Assignment
) -> Float[Tensor, "batch tokens channels"]:
    """Give every token back the feature of its group (B, N, C); a pruned token gets zeros."""
    _check(y, assignment.groups, assignment)
    x = take(y, assignment.index.clamp(min=0) if assignment.drops else assignment.index)
    return torch.where(assignment.kept.unsqueeze(-1), x, 0) if assignment.drops else x


def sum_by_group(
    values: Float[Tensor, "batch tokens *channels"], assignment: Assignment
) -> Float[Tensor, "batch groups *channels"]:
    """Add up the values of the members of each group; what is pruned does not count."""
    _check(values, assignment.tokens, assignment)
    batch, groups, index = assignment.batch, assignment.groups, assignment.index
    if by_product(values):
        with full_precision(values):
            flat = values.unsqueeze(2) if values.dim() == 2 else values.flatten(2)
            total = _members(assignment).to(values.dtype) @ flat
        return total.view(batch, groups, *values.shape[2:])
    # one more group takes what is pruned, and is left out
    extra = groups + int(assignment.drops)
    place = torch.where(index < 0, groups, index) if assignment.drops else index
    if values.dim() == 2:
        return values.new_zeros(batch, extra).scatter_add_(1, place, values)[:, :groups]
    rows = place + torch.arange(batch, device=index.device).unsqueeze(1) * extra
    total = values.new_zeros(batch * extra, *values.shape[2:]).index_add_(
        0, rows.flatten(), values.flatten(0, 1)
    )
    return total.view(batch, extra, *values.shape[2:])[:, :groups]


def by_product(x: Tensor) -> bool:
    """Whether to add up by a matrix product: where adds are atomic, they have no fixed order, and are slower."""
    if x.is_meta:
        # where nothing is computed, sums are not counted as products
        return torch.compiler.is_compiling()
    return x.device.type != "cpu" or x.dtype != torch.float32 or torch.compiler.is_compiling()


def _members(assignment: Assignment) -> Bool[Tensor, "batch groups tokens"]:
    group = torch.arange(assignment.groups, device=assignment.index.device)
    return group.unsqueeze(1) == assignment.index.unsqueeze(1)


def _check(x: Tensor, tokens: int, assignment: Assignment) -> None:
    if x.shape[:2] != (assignment.batch, tokens):
        raise ValueError(
            f"expected a batch of {assignment.batch} with {tokens} tokens each, got {tuple(x.shape[:2])}"
        )
