"""The plans: each decides what becomes of every token, and returns an Assignment. One file a method."""

from batvit.plans import bat, tome, topk
from batvit.plans.plan import Evidence, Plan

PLANS: dict[str, Plan] = {
    "bat": Plan(bat.plan, drops=False),
    "topk": Plan(topk.plan, drops=True),
    "tome": Plan(tome.plan, drops=False, most=0.5),
}

__all__ = ["PLANS", "Evidence", "Plan"]
