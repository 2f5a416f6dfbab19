"""The end of a search: what was found is measured, given as many tokens as that allows, and set beside the preset."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

from torch import nn

from batvit.backbones.adapter import Anatomy
from batvit.budget import Family, OutOfReachError, at_macs, at_time
from batvit.config.config import BATConfig
from batvit.measure.speed import SpeedComparison
from batvit.tune.objective import Score
from batvit.tune.search import Goal, Search, best_of
from batvit.tune.space import Candidate, Cost
from batvit.tune.trials import leaders

CORRECTIONS, CLOSE = 2, 0.02
MISSED = 0.05
FINALISTS = 3

Measure = Callable[[BATConfig], SpeedComparison]
"""times a configuration beside the dense model"""


@dataclass(frozen=True)
class Measured:
    """A configuration as it was measured beside the dense model, and what had been predicted."""

    config: BATConfig
    measured: SpeedComparison
    predicted: float
    """share of the dense model's time, by the cost as it was known before"""

    @property
    def share(self) -> float:
        """Of the dense model's time, as measured."""
        return 1 / self.measured.speedup

    @property
    def error(self) -> float:
        """Of the prediction, relative to what was measured."""
        return self.predicted / self.share - 1

    def row(self, found: Score) -> dict[str, Any]:
        """The configuration, what it loses, and what it takes."""
        told = {"config": self.config.to_dict(), **found.to_dict()}
        return told | {"speedup": self.measured.speedup, "gmacs": self.measured.macs / 1e9}


class Winner(NamedTuple):
    """What a search found, as it was in the search, and as it was measured."""

    trial: dict[str, Any]
    """a complete trial"""
    fitted: Measured
    """its configuration with the cost that the search knew"""
    final: Measured
    """its shape with as many tokens as the time has room for, as measured"""


def winner(search: Search, measure: Measure, *, timed: bool) -> Winner:
    """The best of a search; for a time, which is predicted less well for some shapes than for others, the best after measuring.

    Args:
        search: that came to an end.
        measure: asked once for each configuration.
        timed: whether the cost is time.

    Returns:
        Of the best few, each with other blocks and brought to the time, that which loses least on the pictures searched on;
        if all miss the time, the fastest.

    Raises:
        ValueError: as :func:`batvit.tune.best_of`; or if by now not one of the best is known to be within the time.
    """
    best = best_of(search.study, search.goal)
    if search.goal.budget is None or not timed:
        config = BATConfig.from_dict(best["config"])
        alone = Measured(config, measure(config), best["cost"])
        return Winner(best, alone, alone)
    few, budget, limit = list[Winner](), search.goal.budget, (1 + CLOSE) * search.goal.budget
    for trial in leaders(search.study)[:FINALISTS]:
        tried = settle(
            Candidate(**trial.user_attrs["shape"]), budget, search.cost, search.anatomy, measure
        )
        if tried:
            nearest = min(tried, key=lambda one: (one.share > limit, abs(one.share - budget)))
            few.append(Winner(trial.user_attrs, tried[0], nearest))
    if not few:
        raise ValueError(
            f"what was found takes more than {budget:.3g} of the dense model's time; allow more minutes, or time"
        )
    within = [one for one in few if one.final.share <= limit] or [
        min(few, key=lambda one: one.final.share)
    ]
    return min(within, key=lambda one: search.judged(one.final.config)["loss"])


def settle(
    shape: Candidate, budget: float, cost: Cost, anatomy: Anatomy, measure: Measure
) -> list[Measured]:
    """Measure a shape within a time; where time or prediction miss by more than 2 %, correct the cost, and measure it anew.

    Args:
        shape: with its most tokens for the budget, as the cost so far has it.
        budget: share of the dense model's time.
        cost: of time, as fitted.
        anatomy: of the dense model.
        measure: asked once for each.

    Returns:
        All that was measured, in order: one to three; none if the shape does not go so low.
    """
    tried, factor = list[Measured](), 1.0
    while (
        len(tried) <= CORRECTIONS
        and (config := shape.within(budget / factor, cost, anatomy)) is not None
    ):
        tried.append(Measured(config, measure(config), factor * cost(config)))
        if max(abs(tried[-1].share / budget - 1), abs(tried[-1].error)) <= CLOSE:
            break
        factor = tried[-1].share / cost(config)
    return tried


def preset_beside(
    dense: nn.Module, found: Measured, measure: Measure, *, timed: bool
) -> tuple[str | None, Measured | None, list[str]]:
    """The training-free preset where it costs as much as what was found: in time, if it was timed, or else in MACs.

    Returns:
        Which of both, the preset, and in words what could not be had.
    """
    shares = {"time": found.share} if timed else {}
    shares["MACs"] = found.measured.macs / found.measured.dense_macs
    family, missing = Family.of("bat", dense), list[str]()
    for at, share in shares.items():
        try:
            if share >= 1:
                raise OutOfReachError("tuned saves nothing over the dense model")
            if at == "time":
                config, _ = at_time(dense, family, share, lambda each: 1 / measure(each).speedup)
            else:
                config = at_macs(dense, family, share)
        except OutOfReachError as error:
            missing.append(f"no preset at equal {at}: {error}")
        else:
            return at, Measured(config, measure(config), share), missing
    return None, None, missing


def may_be_written(goal: Goal, preset: Measured, *, timed: bool) -> bool:
    """Whether the preset could take the place of what was found: it keeps to the budget, as it was measured."""
    return goal.budget is not None and (not timed or preset.share <= (1 + CLOSE) * goal.budget)


def held(goal: Goal, found: Measured, drop: float, *, timed: bool) -> str:
    """Whether what was found meets the goal, as it was measured, in a sentence."""
    if goal.budget is None:
        told, over = (
            f"lost {drop:.2f} points of top-1, {goal.max_drop:g} may be",
            drop > (goal.max_drop or 0.0),
        )
        return f"the limit {'does not hold' if over else 'holds'} on the pictures held out: {told}"
    if not timed:
        dense, macs = found.measured.dense_macs / 1e9, found.measured.macs / 1e9
        return f"the target is {_met(macs / dense / goal.budget - 1)}: asked {goal.budget * dense:.3f} G MACs, has {macs:.3f}"
    return f"the target is {_met(found.share / goal.budget - 1)}: asked {1 / goal.budget:.2f}, measured {1 / found.share:.2f}"


def _met(over: float) -> str:
    return (
        "held"
        if over <= CLOSE
        else f"{'missed' if over > MISSED else 'nearly held'}, by {100 * over:.1f} %"
    )
