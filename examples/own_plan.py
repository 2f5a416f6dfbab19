"""A plan of your own: tokens that follow one another in the image become one, whatever it shows.

python examples/own_plan.py
"""

import timm
import torch

import batvit
from batvit.core import Assignment
from batvit.plans import Evidence, Plan
from batvit.plans.plan import Counts


def neighbours(evidence: Evidence, counts: Counts, config: batvit.BATConfig) -> Assignment:
    """Make M runs of N tokens, as equally long as can be; at half the tokens these are pairs."""
    batch = evidence.importance.shape[0]
    place = torch.arange(counts.tokens_in, device=evidence.importance.device)
    # rises by at most one from token to token, from 0 to M - 1: no group is empty, and no token is
    # lost
    run = place * counts.tokens_out // counts.tokens_in
    return Assignment(run.expand(batch, -1), counts.tokens_out, drops=False)


fields = {"weight": "size", "size_aware": True}
batvit.plans.PLANS["mine"] = Plan(neighbours, drops=False, paper_fields=fields)

if __name__ == "__main__":
    model = timm.create_model("deit_tiny_patch16_224")
    batvit.patch(model, batvit.BATConfig(method="mine", keep_rate=0.5, **fields))
    print(batvit.info(model, name="deit_tiny"))
