"""Keep the tokens the class token looks at, drop the rest: pruning as in EViT (Liang et al., ICLR 2022) without fusion."""

import torch

from batvit.config import BATConfig, Counts
from batvit.core import Assignment
from batvit.core.decouple import decouple
from batvit.plans.plan import Evidence


def plan(evidence: Evidence, counts: Counts, config: BATConfig) -> Assignment:
    """The ``tokens_out`` most important tokens stay, each alone."""
    top = decouple(evidence.importance)[:, : counts.tokens_out]
    alone = torch.arange(counts.tokens_out, device=top.device).expand_as(top)
    nowhere = torch.full_like(evidence.importance, -1, dtype=torch.long)
    return Assignment(nowhere.scatter(1, top, alone), counts.tokens_out, drops=True)
