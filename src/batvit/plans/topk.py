"""Keep the tokens the class token looks at, drop the rest: EViT (ICLR 2022) without fusion."""

import torch
from jaxtyping import Float
from torch import Tensor

from batvit.config import BATConfig
from batvit.core import Assignment
from batvit.core.decouple import decouple
from batvit.plans.plan import Counts, Evidence


def plan(evidence: Evidence, counts: Counts, config: BATConfig) -> Assignment:
    """Keep the ``tokens_out`` most important tokens, each alone."""
    return keep(evidence.importance, counts.tokens_out)


def keep(score: Float[Tensor, "batch tokens"], number: int) -> Assignment:
    """Keep the tokens of highest score, each alone; of equal scores the lower positions."""
    top = decouple(score)[:, :number]
    alone = torch.arange(number, device=top.device).expand_as(top)
    nowhere = torch.full_like(score, -1, dtype=torch.long)
    return Assignment(nowhere.scatter(1, top, alone), number, drops=True)
