"""The plans: each decides what becomes of every token, and returns an Assignment.

- ``plan``: what a plan is (:class:`Plan`), and what it is given (``Evidence``, ``Counts``).
- ``bat``: Beyond Attentive Tokens, put together from :mod:`batvit.core`.
- ``topk``, ``random``, ``ats``: keep some tokens, drop the rest.
- ``evit``: fuse the inattentive into one token.
- ``diffrate``: drop some, merge some, as published for each block.
- ``tome``, ``pitome``, ``tofu``, ``mctf``: merge pairs found by bipartite matching.
- ``dpcknn``, ``kmedoids``, ``atc``: cluster all tokens.

A new plan is one file here and one entry of :data:`PLANS`; outside the library the same entry
registers it (``examples/own_plan.py``).
"""

from typing import Any

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
BY_SIZE = {"weight": "size", "size_aware": True}
BY_IMPORTANCE_AND_SIZE = {"weight": "importance_size", "size_aware": True}
# as in ToMe, which many follow
KEYS_BY_SIZE: dict[str, Any] = BY_SIZE | {"similarity": "keys"}
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
        tome.plan, drops=False, max_reduction=0.5, paper_fields=KEYS_BY_SIZE, site_rule="blocks"
    ),
    "pitome": Plan(
        pitome.plan, drops=False, max_reduction=0.5, paper_fields=KEYS_BY_SIZE, site_rule="rates"
    ),
    "tofu": Plan(
        tofu.plan,
        drops=False,
        max_reduction=0.5,
        combine=tofu.combine,
        paper_fields=KEYS_BY_SIZE,
        site_rule="blocks",
    ),
    "mctf": Plan(
        mctf.plan,
        drops=False,
        max_reduction=0.5,
        paper_fields=BY_IMPORTANCE_AND_SIZE,
        site_rule="blocks",
        first_block=1,
    ),
    "dpcknn": Plan(
        dpcknn.plan, drops=False, paper_fields=PLAIN | {"neighbours": dpcknn.NEIGHBOURS}
    ),
    "kmedoids": Plan(kmedoids.plan, drops=False, paper_fields=PLAIN),
    "atc": Plan(atc.plan, drops=False, paper_fields=KEYS_BY_SIZE),
    "atc_complete": Plan(atc.plan_complete, drops=False, paper_fields=KEYS_BY_SIZE),
    "atc_single": Plan(atc.plan_single, drops=False, paper_fields=KEYS_BY_SIZE),
}

__all__ = ["PLANS", "Counts", "Evidence", "Plan"]
