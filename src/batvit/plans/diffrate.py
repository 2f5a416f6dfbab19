"""DiffRate (Chen et al., ICCV 2023, section 3): prune the least important, merge the next.

The class token's attention ranks the tokens. Of those that go the last are lost; the others, more
important, each join the most similar (cosine) of those that stay. How many, the paper learns for
each model and budget: its published counts are :data:`SCHEDULES`. For other budgets :func:`shares`
has what lies between them; at a step that none of them has, the share of merges is their average,
about a half. A group is the mean of its members weighted by size, and counts for all of them, as in
ToMe; the authors' code takes the plain mean, and lessens the size of what is merged by how unlike
it is.
"""

import math
from typing import Any, NamedTuple

import torch

from batvit.config import BATConfig
from batvit.core import Assignment
from batvit.core.decouple import decouple, take
from batvit.core.match import cosines
from batvit.plans.plan import Counts, Evidence, put

PUBLISHED: dict[str, Any] = {"weight": "size", "size_aware": True}
PATCHES = 196
WIDTHS = {"deit_tiny": 192, "deit_small": 384, "deit_base": 768}
# image tokens after pruning, then after merging, in each of 12 blocks, by published G MACs
SCHEDULES: dict[str, dict[float, tuple[tuple[int, ...], tuple[int, ...]]]] = {
    "deit_tiny": {
        0.6: (
            (196, 195, 179, 156, 129, 106, 85, 72, 62, 50, 39, 2),
            (196, 186, 166, 138, 113, 89, 75, 65, 56, 44, 36, 2),
        ),
        0.7: (
            (196, 195, 193, 179, 149, 122, 97, 81, 67, 59, 51, 2),
            (196, 195, 191, 157, 132, 102, 87, 71, 63, 57, 48, 2),
        ),
        0.8: (
            (196, 196, 195, 185, 165, 146, 116, 102, 91, 79, 73, 2),
            (196, 195, 189, 171, 153, 124, 106, 95, 83, 77, 69, 2),
        ),
        0.9: (
            (196, 196, 195, 189, 181, 165, 140, 124, 112, 104, 98, 2),
            (196, 195, 193, 187, 171, 146, 128, 114, 106, 102, 95, 2),
        ),
        1.0: (
            (196, 196, 195, 193, 187, 183, 177, 163, 155, 136, 128, 20),
            (196, 196, 195, 189, 185, 153, 147, 155, 144, 134, 124, 20),
        ),
    },
    "deit_small": {
        2.3: (
            (196, 191, 167, 142, 120, 104, 91, 73, 61, 44, 32, 2),
            (196, 179, 155, 126, 108, 97, 79, 65, 51, 36, 30, 2),
        ),
        2.5: (
            (196, 191, 173, 155, 130, 114, 110, 98, 75, 49, 38, 2),
            (196, 185, 159, 132, 118, 106, 95, 81, 65, 42, 36, 2),
        ),
        2.7: (
            (196, 195, 181, 159, 140, 126, 114, 104, 87, 65, 48, 2),
            (196, 187, 169, 146, 130, 118, 108, 95, 75, 53, 44, 2),
        ),
        2.9: (
            (196, 195, 189, 167, 149, 138, 128, 116, 98, 77, 57, 2),
            (196, 193, 175, 155, 140, 132, 120, 106, 87, 63, 55, 2),
        ),
        3.1: (
            (196, 196, 193, 179, 159, 146, 136, 128, 114, 91, 75, 2),
            (196, 195, 185, 163, 149, 140, 132, 120, 102, 77, 67, 2),
        ),
    },
    "deit_base": {
        8.7: (
            (196, 191, 171, 155, 130, 106, 89, 71, 55, 32, 16, 2),
            (196, 177, 161, 140, 114, 95, 77, 59, 46, 20, 12, 2),
        ),
        10.0: (
            (196, 193, 181, 167, 147, 128, 112, 100, 81, 48, 24, 2),
            (196, 185, 173, 155, 136, 116, 104, 89, 65, 30, 18, 2),
        ),
        10.4: (
            (196, 195, 187, 173, 155, 140, 120, 102, 89, 57, 24, 2),
            (196, 189, 183, 163, 144, 130, 106, 93, 73, 30, 20, 2),
        ),
        11.5: (
            (196, 196, 196, 187, 169, 153, 138, 122, 106, 71, 42, 2),
            (196, 196, 191, 177, 157, 144, 126, 110, 93, 49, 34, 2),
        ),
        12.5: (
            (196, 196, 195, 191, 183, 169, 153, 138, 128, 93, 57, 2),
            (196, 195, 193, 189, 175, 159, 144, 130, 114, 67, 46, 2),
        ),
    },
}


def schedule(architecture: str, gmacs: float) -> BATConfig:
    """Return a published schedule as a configuration, for the 196 patches and 12 blocks of a DeiT.

    Its MACs, counted by :func:`batvit.info`, are within 1.5 % of the published ones; deit_tiny's of
    0.6 and 0.7 take 0.66 and 0.73 G.

    Args:
        architecture: deit_tiny, deit_small or deit_base.
        gmacs: the published budget.

    Raises:
        ValueError: if there is none, naming those that there are.
    """
    after = tokens(architecture, gmacs)
    return BATConfig(method="diffrate", tokens=after, blocks=tuple(range(len(after))), **PUBLISHED)


def tokens(architecture: str, gmacs: float) -> tuple[int, ...]:
    """Return the image tokens after each block of a published schedule.

    Arguments and errors as of :func:`schedule`.
    """
    schedules = SCHEDULES.get(architecture, {})
    if gmacs not in schedules:
        published = []
        for name, budgets in SCHEDULES.items():
            published.append(f"{name}: {', '.join(map(str, budgets))}")
        raise ValueError(
            f"no published schedule of {architecture!r} at {gmacs} G MACs; "
            f"there are {'; '.join(published)}"
        )
    pruned, merged = schedules[gmacs]
    return tuple(step.after for step in _steps(pruned, merged))


def shares(width: int, depth: int, keep: float) -> list[float]:
    """Return the share of the image tokens after each block, for any budget.

    Args:
        width: channels of a token; of the DeiT of nearest width the published schedules are taken.
        depth: how many blocks the model has; a block takes the share of that at its depth in a
            DeiT.
        keep: in (0, 1]. The published schedules stand at equal distances, from the leanest on, and
            all tokens at 1; between them the shares lie on straight lines, and below the leanest
            they are a power of its own.
    """
    architecture = min(WIDTHS, key=lambda name: abs(math.log(WIDTHS[name] / width)))
    published = []
    for gmacs in sorted(SCHEDULES[architecture]):
        published.append([count / PATCHES for count in tokens(architecture, gmacs)])
    published.append([1.0] * len(published[0]))
    # whole numbers are schedules
    place = max(keep * len(published) - 1, 0.0)
    low = min(math.floor(place + 1e-9), len(published) - 2)
    power = max(1 / (keep * len(published)), 1.0)
    of_deit = []
    for lean, rich in zip(published[low], published[low + 1], strict=True):
        of_deit.append((lean + (place - low) * (rich - lean)) ** power)
    of_model = []
    for block in range(depth):
        deit_blocks = max(round((block + 1) * len(of_deit) / depth), 1)
        of_model.append(of_deit[deit_blocks - 1])
    return of_model


class Step(NamedTuple):
    """What a published schedule does in one block."""

    before: int
    """tokens that come in"""
    after: int
    """tokens that go on"""
    merges: int
    """how many of those that go are merged"""


def _steps(pruned: tuple[int, ...], merged: tuple[int, ...]) -> list[Step]:
    """Return what a schedule does in each block; a count above an earlier one changes nothing."""
    steps = []
    before = PATCHES
    for after_pruning, after_merging in zip(pruned, merged, strict=True):
        kept = min(before, after_pruning)
        after = min(kept, after_merging)
        steps.append(Step(before, after, kept - after))
        before = after
    return steps


def _all_steps() -> list[tuple[int, Step]]:
    """Return the steps of all schedules, each with its block."""
    steps: list[tuple[int, Step]] = []
    for budgets in SCHEDULES.values():
        for pruned, merged in budgets.values():
            steps.extend(enumerate(_steps(pruned, merged)))
    return steps


STEPS = _all_steps()
# where two schedules take the same step with other merges, the later one counts
MERGES = {(block, step.before, step.after): step.merges for block, step in STEPS}
MERGED_SHARE = sum(step.merges for _, step in STEPS) / sum(
    step.before - step.after for _, step in STEPS
)


def merges_of(counts: Counts) -> int:
    """Return how many of the tokens that go are merged; the rest is pruned.

    As published for this block, or by the average share.
    """
    published = MERGES.get((counts.block, counts.tokens_in, counts.tokens_out))
    if published is not None:
        return published
    return round(MERGED_SHARE * (counts.tokens_in - counts.tokens_out))


def plan(evidence: Evidence, counts: Counts, config: BATConfig) -> Assignment:
    """Keep the most important ``tokens_out``; of the others the more important join these."""
    batch = evidence.importance.shape[0]
    kept = counts.tokens_out
    merges = merges_of(counts)
    order = decouple(evidence.importance)
    group = torch.arange(counts.tokens_in, device=order.device).repeat(batch, 1)
    group[:, kept:] = -1
    if merges:
        ranked = take(evidence.features, order[:, : kept + merges])
        partner = cosines(ranked[:, kept:], ranked[:, :kept]).argmax(dim=2)
        group = put(group, partner, slice(kept, kept + merges))
    return Assignment(group.scatter(1, order, group), kept, drops=True)
