"""The plans: each decides what becomes of every token, and returns an Assignment. One file a method."""

from batvit.plans import atc, ats, bat, diffrate, dpcknn, evit, kmedoids, mctf, pitome, random, tofu, tome, topk
from batvit.plans.plan import Evidence, Plan

PLAIN = {"weight": "importance", "size_aware": False}
SIZES = {"weight": "size", "size_aware": True}
BOTH = {"weight": "importance_size", "size_aware": True}
KEYS = {"similarity": "keys"}
PRESET = {"weight": "importance", "size_aware": True, "keep_norm": True, "centres": 0.5, "neighbours": 2}

PLANS: dict[str, Plan] = {
    "bat": Plan(bat.plan, drops=False, published=PRESET),
    "topk": Plan(topk.plan, drops=True, published=PLAIN),
    "evit": Plan(evit.plan, drops=False, combine=evit.combine, published=PLAIN),
    "random": Plan(random.plan, drops=True, published=PLAIN),
    "ats": Plan(ats.plan, drops=True, published=PLAIN),
    "diffrate": Plan(diffrate.plan, drops=True, published=diffrate.PUBLISHED, spread="list"),
    "tome": Plan(tome.plan, drops=False, most=0.5, published=SIZES | KEYS, spread="blocks"),
    "pitome": Plan(pitome.plan, drops=False, most=0.5, published=SIZES | KEYS, spread="rates"),
    "tofu": Plan(tofu.plan, drops=False, most=0.5, combine=tofu.combine, published=SIZES | KEYS, spread="blocks"),
    "mctf": Plan(mctf.plan, drops=False, most=0.5, published=BOTH, spread="blocks", first=1),
    "dpcknn": Plan(dpcknn.plan, drops=False, published=PLAIN | {"neighbours": dpcknn.NEIGHBOURS}),
    "kmedoids": Plan(kmedoids.plan, drops=False, published=PLAIN),
    "atc": Plan(atc.plan, drops=False, published=SIZES | KEYS),
    "atc_complete": Plan(atc.plan_complete, drops=False, published=SIZES | KEYS),
    "atc_single": Plan(atc.plan_single, drops=False, published=SIZES | KEYS),
}

__all__ = ["PLANS", "Evidence", "Plan"]
