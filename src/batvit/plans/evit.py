"""Fuse the inattentive tokens into one (Liang et al., EViT, ICLR 2022, equation 3).

The paper is "Not All Patches Are What You Need". The fused token is the sum of a_i x_i over the
inattentive tokens, as published: it is not divided by the sum of the a_i, and so shorter than its
members.
"""

import torch
from jaxtyping import Float
from torch import Tensor

from batvit.config import BATConfig
from batvit.core import Assignment, sum_by_group
from batvit.core.decouple import decouple
from batvit.plans.plan import Counts, Evidence


def plan(evidence: Evidence, counts: Counts, config: BATConfig) -> Assignment:
    """Leave the attentive tokens alone, ``tokens_out`` - 1 of them, and fuse all the others."""
    order = decouple(evidence.importance)
    group = torch.arange(counts.tokens_in, device=order.device).clamp(max=counts.tokens_out - 1)
    index = order.scatter(1, order, group.expand_as(order))
    return Assignment(index, counts.tokens_out, drops=False)


def combine(
    x: Float[Tensor, "batch tokens channels"], evidence: Evidence, assignment: Assignment
) -> Float[Tensor, "batch groups channels"]:
    """Return the attentive tokens, then the sum of the others weighted by their attention.

    Gradients flow into features and attention.
    """
    alone = assignment.index < assignment.groups - 1
    weight = torch.where(alone, 1, evidence.importance)
    return sum_by_group(x.float() * weight.unsqueeze(-1), assignment).to(x.dtype)
