"""Adaptive token sampling (Fayyaz et al., ECCV 2022, section 3.2), with as many tokens per image.

The cumulative importance is inverted at evenly spaced levels, so that a part of the image keeps
tokens by the importance it holds. Where this differs from what is published:

- Several levels may meet in one token, and an image then keeps fewer. Here the places left go to
  the most important tokens not yet taken, so that shapes stay fixed.
- The published score is the attention times the norm of the value. A site has no values, so here it
  is the attention alone.
- It is added up in the order of the image. The authors' code sorts it before, so that levels fall
  among tokens of like importance.
- Published in most blocks of a model. :mod:`batvit.budget` takes it at three sites, like other
  plans that drop tokens by importance.
"""

import torch

from batvit.config import BATConfig
from batvit.core import Assignment
from batvit.plans.plan import Counts, Evidence
from batvit.plans.topk import keep

# above every importance
FIRST = 2.0


def plan(evidence: Evidence, counts: Counts, config: BATConfig) -> Assignment:
    """Keep those that the levels (2k - 1) / 2K meet, then the most important; each stays alone.

    k = 1 .. K = ``tokens_out``.
    """
    importance = evidence.importance.float()
    levels = counts.tokens_out
    cumulative = importance.cumsum(dim=1)
    level = (torch.arange(levels, device=importance.device) + 0.5) / levels * cumulative[:, -1:]
    # the first token at which the sum reaches the level; rounding must not lead past the last
    met = (cumulative.unsqueeze(1) < level.unsqueeze(2)).sum(dim=2).clamp(max=counts.tokens_in - 1)
    taken = torch.zeros_like(importance, dtype=torch.bool).scatter(1, met, 1)
    return keep(torch.where(taken, importance + FIRST, importance), levels)
