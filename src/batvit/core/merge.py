"""Step 5: the only place where features move."""

import torch
from jaxtyping import Float
from torch import Tensor

from batvit.core.assignment import Assignment
from batvit.core.precision import full_precision


def merge(
    x: Float[Tensor, "batch tokens channels"],
    assignment: Assignment,
    weight: Float[Tensor, "batch tokens"] | None = None,
) -> Float[Tensor, "batch groups channels"]:
    """Each group becomes the weighted mean of its members, y_g = sum_i w_i x_i / sum_i w_i.

    Args:
        x: (B, N, C), any floating type; sums are taken in float32.
        assignment: N tokens to M groups.
        weight: (B, N), non-negative; equal weights when None. A group of zero weight is a plain mean, never 0/0.

    Returns:
        (B, M, C) in the type of ``x``. Gradients flow into ``x`` and ``weight``.

    Raises:
        ValueError: if ``x`` is not of the assignment's batch and number of tokens.
    """
    weight = torch.ones_like(x[..., 0], dtype=torch.float32) if weight is None else weight.float()
    total = sum_by_group(weight, assignment)
    # a group without weight falls back to equal weights
    weight = torch.where(_of_group(total, assignment) > 0, weight, 1.0)
    share = weight / _of_group(sum_by_group(weight, assignment), assignment)
    return sum_by_group(x.float() * share.unsqueeze(-1), assignment).to(x.dtype)


def unmerge(y: Float[Tensor, "batch groups channels"], assignment: Assignment) -> Float[Tensor, "batch tokens channels"]:
    """Give every token back the feature of its group (B, N, C); a pruned token gets zeros."""
    _check(y, assignment.groups, assignment)
    x = y.gather(1, assignment.index.clamp(min=0).unsqueeze(-1).expand(-1, -1, y.shape[-1]))
    return torch.where(assignment.kept.unsqueeze(-1), x, 0)


def sum_by_group(
    values: Float[Tensor, "batch tokens *channels"], assignment: Assignment
) -> Float[Tensor, "batch groups *channels"]:
    """Add up the values of the members of each group; what is pruned does not count."""
    _check(values, assignment.tokens, assignment)
    index, batch, groups = assignment.index, assignment.batch, assignment.groups
    if values.is_cuda:
        # atomic adds have no fixed order there: one matrix product is deterministic, and faster
        member = torch.arange(groups, device=index.device).unsqueeze(1) == index.unsqueeze(1)
        with full_precision(values):
            return (member.to(values.dtype) @ values.reshape(*index.shape, -1)).view(batch, groups, *values.shape[2:])
    # what is pruned falls into one more group, which is left out
    place = torch.where(assignment.kept, index, groups)
    rows = place + torch.arange(batch, device=index.device).unsqueeze(1) * (groups + 1)
    total = values.new_zeros(batch * (groups + 1), *values.shape[2:])
    total = total.index_add(0, rows.flatten(), values.flatten(0, 1))
    return total.view(batch, groups + 1, *values.shape[2:])[:, :groups]


def _check(x: Tensor, tokens: int, assignment: Assignment) -> None:
    if x.shape[:2] != (assignment.batch, tokens):
        raise ValueError(f"expected a batch of {assignment.batch} with {tokens} tokens each, got {tuple(x.shape[:2])}")


def _of_group(value: Float[Tensor, "batch groups"], assignment: Assignment) -> Float[Tensor, "batch tokens"]:
    return value.gather(1, assignment.index.clamp(min=0))
