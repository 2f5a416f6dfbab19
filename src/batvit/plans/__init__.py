"""The plans: each decides what becomes of every token, and returns an Assignment. One file a method."""

from batvit.plans import atc, bat, dpcknn, evit, kmedoids, pitome, random, tome, topk
from batvit.plans.plan import Evidence, Plan

PLANS: dict[str, Plan] = {
    "bat": Plan(bat.plan, drops=False),
    "topk": Plan(topk.plan, drops=True),
    "evit": Plan(evit.plan, drops=False, combine=evit.combine),
    "random": Plan(random.plan, drops=True),
    "tome": Plan(tome.plan, drops=False, most=0.5),
    "pitome": Plan(pitome.plan, drops=False, most=0.5),
    "dpcknn": Plan(dpcknn.plan, drops=False),
    "kmedoids": Plan(kmedoids.plan, drops=False),
    "atc": Plan(atc.plan, drops=False),
}

__all__ = ["PLANS", "Evidence", "Plan"]
