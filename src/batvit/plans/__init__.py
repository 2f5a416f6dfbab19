"""The plans: each decides what becomes of every token, and returns an Assignment. One file a method."""

from batvit.plans import bat, topk
from batvit.plans.plan import Evidence, Plan

PLANS: dict[str, Plan] = {
    "bat": Plan(bat.plan, drops=False),
    "topk": Plan(topk.plan, drops=True),
}

__all__ = ["PLANS", "Evidence", "Plan"]
