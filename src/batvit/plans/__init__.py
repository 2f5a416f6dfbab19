"""The plans: each decides what becomes of every token, and returns an Assignment. One file a method."""

from batvit.config.presets import TRAINING_FREE
from batvit.plans import (
    atc,
    ats,
    bat,
    diffrate,
    dpcknn,
    evit,
    kmedoids,
    mctf,
    pitome,
    random,
    tofu,
    tome,
    topk,
)
from batvit.plans.plan import Counts, Evidence, Plan

PLAIN = {"weight": "importance", "size_aware": False}
SIZES = {"weight": "size", "size_aware": True}
BOTH = {"weight": "importance_size", "size_aware": True}
KEYS = {"similarity": "keys"}
# counts are not aligned, so that any budget can be met
BAT = {name: value for name, value in TRAINING_FREE.items() if name != "align"}

PLANS: dict[str, Plan] = {
    "bat": Plan(bat.plan, drops=False, paper_fields=BAT, split=bat.split),
    "topk": Plan(topk.plan, drops=True, paper_fields=PLAIN),
    "evit": Plan(evit.plan, drops=False, combine=evit.combine, paper_fields=PLAIN),
    "random": Plan(random.plan, drops=True, paper_fields=PLAIN),
    "ats": Plan(ats.plan, drops=True, paper_fields=PLAIN),
    "diffrate": Plan(diffrate.plan, drops=True, paper_fields=diffrate.PUBLISHED, site_rule="list"),
    "tome": Plan(
        tome.plan, drops=False, max_reduction=0.5, paper_fields=SIZES | KEYS, site_rule="blocks"
    ),
    "pitome": Plan(
        pitome.plan, drops=False, max_reduction=0.5, paper_fields=SIZES | KEYS, site_rule="rates"
    ),
    "tofu": Plan(
        tofu.plan,
        drops=False,
        max_reduction=0.5,
        combine=tofu.combine,
        paper_fields=SIZES | KEYS,
        site_rule="blocks",
    ),
    "mctf": Plan(
        mctf.plan,
        drops=False,
        max_reduction=0.5,
        paper_fields=BOTH,
        site_rule="blocks",
        first_block=1,
    ),
    "dpcknn": Plan(
        dpcknn.plan, drops=False, paper_fields=PLAIN | {"neighbours": dpcknn.NEIGHBOURS}
    ),
    "kmedoids": Plan(kmedoids.plan, drops=False, paper_fields=PLAIN),
    "atc": Plan(atc.plan, drops=False, paper_fields=SIZES | KEYS),
    "atc_complete": Plan(atc.plan_complete, drops=False, paper_fields=SIZES | KEYS),
    "atc_single": Plan(atc.plan_single, drops=False, paper_fields=SIZES | KEYS),
}

__all__ = ["PLANS", "Counts", "Evidence", "Plan"]
