"""Step 5: the only place where features move."""

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from batvit.core.assignment import Assignment
from batvit.core.decouple import take
from batvit.core.precision import rows_of

NO_WEIGHT = 1e-30


def merge(
    x: Float[Tensor, "batch tokens channels"],
    assignment: Assignment,
    weight: Float[Tensor, "batch tokens"] | None = None,
    *,
    keep_norm: bool = False,
) -> Float[Tensor, "batch groups channels"]:
    """Return the weighted mean of the members of each group, y_g = sum_i w_i x_i / sum_i w_i.

    Args:
        x: (B, N, C), any floating type; sums are taken in float32.
        assignment: N tokens to M groups.
        weight: (B, N), non-negative; equal weights when None. A group of zero weight is a plain
            mean, never 0/0.
        keep_norm: scale y_g to the length sum_i w_i ‖x_i‖ / sum_i w_i. A mean of unlike tokens is
            shorter than they are, and what later blocks add to it would weigh more. (MLERP of ToFu,
            WACV 2024, takes the largest length.)

    Returns:
        (B, M, C) in the type of ``x``. Gradients flow into ``x`` and ``weight``.

    Raises:
        ValueError: if ``x`` is not of the assignment's batch and number of tokens.

    Examples:
        >>> tokens = torch.tensor([[[1.0], [2.0], [6.0]]])
        >>> pairs = batvit.Assignment.from_index(torch.tensor([0, 1, 1]))
        >>> batvit.merge(tokens, pairs).tolist()
        [[[1.0], [4.0]]]
        >>> batvit.merge(tokens, pairs, weight=torch.tensor([[1.0, 3.0, 1.0]])).tolist()
        [[[1.0], [3.0]]]
    """
    _check(x, assignment.tokens, assignment)
    if weight is None:
        weight = torch.ones_like(x[..., 0], dtype=torch.float32)
    else:
        # so little that it counts in a group of no weight alone, which falls back to equal weights
        weight = weight.float().clamp(min=NO_WEIGHT)
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
    wide = torch.promote_types(x.dtype, torch.float32)
    lengths: Tensor = torch.linalg.vector_norm(x, dim=2, dtype=wide)
    return lengths.float()


def _weighted(
    x: Float[Tensor, "batch tokens channels"],
    share: Float[Tensor, "batch tokens"],
    group: Int64[Tensor, "batch tokens"],
    assignment: Assignment,
) -> Float[Tensor, "batch groups channels"]:
    """Return the sum of the members of each group, each times its share."""
    if not by_product(x):
        return sum_by_group(x.float() * share.unsqueeze(-1), assignment).to(x.dtype)
    if assignment.drops:
        share = torch.where(assignment.kept, share, 0)
    shares = x.new_zeros(assignment.batch, assignment.groups, assignment.tokens)
    shares.scatter_(1, group.unsqueeze(1), share.to(x.dtype).unsqueeze(1))
    return rows_of(shares, x)


def unmerge(
    y: Float[Tensor, "batch groups channels"], assignment: Assignment
) -> Float[Tensor, "batch tokens channels"]:
    """Give every token back the feature of its group (B, N, C); a pruned token gets zeros.

    Raises:
        ValueError: if ``y`` is not of the assignment's batch and number of groups.

    Examples:
        >>> pruned = batvit.Assignment.from_index(torch.tensor([1, 0, 1, -1]))
        >>> batvit.unmerge(torch.tensor([[[4.0], [7.0]]]), pruned).tolist()
        [[[7.0], [4.0], [7.0], [0.0]]]
    """
    _check(y, assignment.groups, assignment)
    if not assignment.drops:
        return take(y, assignment.index)
    x = take(y, assignment.index.clamp(min=0))
    return torch.where(assignment.kept.unsqueeze(-1), x, 0)


def sum_by_group(
    values: Float[Tensor, "batch tokens *channels"], assignment: Assignment
) -> Float[Tensor, "batch groups *channels"]:
    """Add up the values of the members of each group; what is pruned does not count."""
    _check(values, assignment.tokens, assignment)
    batch = assignment.batch
    groups = assignment.groups
    channels = values.shape[2:]
    if by_product(values):
        flat = values.unsqueeze(2) if values.dim() == 2 else values.flatten(2)
        total = rows_of(_members(assignment).to(values.dtype), flat)
        return total.view(batch, groups, *channels)
    place = assignment.index
    rows = groups
    if assignment.drops:
        # one more group takes what is pruned, and is left out
        place = torch.where(place < 0, groups, place)
        rows = groups + 1
    if values.dim() == 2:
        # not in place: under torch.func.vmap the places may be batched where the values are not
        return values.new_zeros(batch, rows).scatter_add(1, place, values)[:, :groups]
    # the groups of all images are rows of one flat table
    row = place + torch.arange(batch, device=place.device).unsqueeze(1) * rows
    table = values.new_zeros(batch * rows, *channels)
    table.index_add_(0, row.flatten(), values.flatten(0, 1))
    return table.view(batch, rows, *channels)[:, :groups]


def by_product(x: Tensor) -> bool:
    """Return whether to add up by a matrix product.

    Where adds are atomic, they have no fixed order, and are slower.
    """
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
            f"expected a batch of {assignment.batch} with {tokens} tokens each, "
            f"got {tuple(x.shape[:2])}"
        )
