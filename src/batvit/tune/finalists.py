"""The end of a search: the best are measured, given as many tokens as that allows, and compared."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

from torch import nn

from batvit.backbones.adapter import Anatomy
from batvit.budget import Family, OutOfReachError, at_macs, at_time
from batvit.config import BATConfig
from batvit.measure.clock import Quartiles
from batvit.tune.objective import Score
from batvit.tune.search import Goal, Search, best_of
from batvit.tune.space import Candidate, Cost
from batvit.tune.trials import Trial, leaders

FINALISTS = 3
# how often a cost is corrected by what was measured
CORRECTIONS = 2
# relative; what is nearer to its target meets it, or nearly meets it
GOAL_TOLERANCE = 0.02
NEAR_MISS = 0.05


class Measurement(NamedTuple):
    """A configuration, measured beside the dense model."""

    speedup: float
    macs: int
    dense_macs: int
    speedups: Quartiles | None = None
    """of single rounds; None if it is not known"""
    unsteady: bool = False
    """whether the speed-up is no better known than within 5 %"""


Measure = Callable[[BATConfig], Measurement]
"""times a configuration beside the dense model"""


@dataclass(frozen=True)
class Measured:
    """A configuration as it was measured, and its time as it had been predicted."""

    config: BATConfig
    measurement: Measurement
    predicted: float
    """share of the dense model's time, by the cost as it was known before"""

    @property
    def time_share(self) -> float:
        """Share of the dense model's time, as measured."""
        return 1 / self.measurement.speedup

    @property
    def macs_share(self) -> float:
        """Share of the dense model's MACs."""
        return self.measurement.macs / self.measurement.dense_macs

    @property
    def error(self) -> float:
        """Error of the prediction, relative to what was measured."""
        return self.predicted / self.time_share - 1

    def row(self, score: Score) -> dict[str, Any]:
        """Return plain values: the configuration, what it loses, and what it takes."""
        spread = self.measurement.speedups
        return {
            "config": self.config.to_dict(),
            **score.to_dict(),
            "speedup": self.measurement.speedup,
            "speedup_low": None if spread is None else spread.low,
            "speedup_high": None if spread is None else spread.high,
            "unsteady": self.measurement.unsteady,
            "gmacs": self.measurement.macs / 1e9,
        }


class Finalist(NamedTuple):
    """One of the best of a search, as it was in the search, and as it was measured."""

    trial: Trial
    first: Measured
    """with the cost that the search knew"""
    final: Measured
    """with as many tokens as the time has room for, as measured"""


class PresetMatch(NamedTuple):
    """The training-free preset where it costs as much as what was tuned."""

    at: str | None
    """the cost that is equal: "time" or "MACs"; None if there is no such preset"""
    measured: Measured | None
    missing: list[str]
    """sentences about what could not be had"""


def best_finalist(search: Search, measure: Measure, *, timed: bool) -> Finalist:
    """Return the best of a search, after measuring.

    A time is predicted less well for some candidates than for others. So if the cost is time, the
    best few, each with other blocks, are brought to the time that may be spent. Of those that keep
    to it the one counts that loses least on the pictures of the search; if none does, the fastest.

    Args:
        search: that came to an end.
        measure: asked once for each configuration.
        timed: whether the cost is time.

    Raises:
        ValueError: as :func:`batvit.tune.search.best_of`; or if by now not one of the best is known
            to be within the time.
    """
    best = best_of(search.study, search.goal)
    budget = search.goal.budget
    if budget is None or not timed:
        measured = Measured(best.config, measure(best.config), best.cost)
        return Finalist(best, measured, measured)
    finalists = []
    for trial in leaders(search.study)[:FINALISTS]:
        tried = measure_within(trial.candidate, budget, search.cost, search.anatomy, measure)
        if tried:
            finalists.append(Finalist(trial, tried[0], _nearest(tried, budget)))
    if not finalists:
        raise ValueError(
            f"what was found takes more than {budget:.3g} of the dense model's time; "
            "allow more minutes, or time"
        )
    in_time = [finalist for finalist in finalists if _in_time(finalist.final, budget)]
    if not in_time:
        return min(finalists, key=lambda finalist: finalist.final.time_share)
    return min(in_time, key=lambda finalist: search.loss_of(finalist.final.config))


def measure_within(
    candidate: Candidate, budget: float, cost: Cost, anatomy: Anatomy, measure: Measure
) -> list[Measured]:
    """Measure a candidate with as many tokens as a time allows.

    Where the time or its prediction misses by more than 2 %, the cost is corrected by what was
    measured, and the candidate is given tokens and measured anew.

    Args:
        candidate: a point of the search space.
        budget: share of the dense model's time.
        cost: of time, as fitted.
        anatomy: of the dense model.
        measure: asked once for each configuration.

    Returns:
        All that was measured, in order: at most three; none if the candidate does not go so low.
    """
    tried: list[Measured] = []
    factor = 1.0
    while len(tried) <= CORRECTIONS:
        config = candidate.within(budget / factor, cost, anatomy)
        if config is None:
            break
        measured = Measured(config, measure(config), factor * cost(config))
        tried.append(measured)
        miss = abs(measured.time_share / budget - 1)
        if max(miss, abs(measured.error)) <= GOAL_TOLERANCE:
            break
        factor = measured.time_share / cost(config)
    return tried


def preset_at_same(
    dense: nn.Module, tuned: Measured, measure: Measure, *, timed: bool
) -> PresetMatch:
    """Bring the training-free preset to the cost of what was tuned.

    That is the time, if the cost is time and a preset is so fast; or else the MACs.
    """
    shares = {}
    if timed:
        shares["time"] = tuned.time_share
    shares["MACs"] = tuned.macs_share
    missing = []
    for at, share in shares.items():
        try:
            config = _preset_at(dense, at, share, measure)
        except OutOfReachError as error:
            missing.append(f"no preset at equal {at}: {error}")
            continue
        return PresetMatch(at, Measured(config, measure(config), share), missing)
    return PresetMatch(None, None, missing)


def preset_may_win(goal: Goal, preset: Measured, *, timed: bool) -> bool:
    """Return whether the preset may be written instead of what was tuned: it keeps the budget."""
    if goal.budget is None:
        return False
    return not timed or _in_time(preset, goal.budget)


def goal_sentence(goal: Goal, measured: Measured, drop: float, *, timed: bool) -> str:
    """Write a sentence about whether what was measured meets the goal."""
    if goal.budget is None:
        holds = "holds" if drop <= (goal.max_drop or 0.0) else "does not hold"
        return (
            f"the limit {holds} on the pictures held out: "
            f"lost {drop:.2f} points of top-1, {goal.max_drop:g} may be"
        )
    if timed:
        outcome = f"is {_outcome(measured.time_share / goal.budget - 1)}"
        if measured.measurement.unsteady:
            outcome = f"cannot be judged, as times spread too much{_middle(measured)}"
        return (
            f"the target {outcome}: "
            f"asked {1 / goal.budget:.2f}, measured {1 / measured.time_share:.2f}"
        )
    outcome = _outcome(measured.macs_share / goal.budget - 1)
    asked = goal.budget * measured.measurement.dense_macs / 1e9
    return (
        f"the target is {outcome}: "
        f"asked {asked:.3f} G MACs, has {measured.measurement.macs / 1e9:.3f}"
    )


def _outcome(over: float) -> str:
    """Say how a target was met, which was exceeded by a share of itself."""
    if over <= GOAL_TOLERANCE:
        return "held"
    kind = "missed" if over > NEAR_MISS else "nearly held"
    return f"{kind}, by {100 * over:.1f} %"


def _middle(measured: Measured) -> str:
    spread = measured.measurement.speedups
    if spread is None:
        return ""
    return f" (speed-ups of {spread.low:.2f} to {spread.high:.2f} in half of the rounds)"


def _in_time(measured: Measured, budget: float) -> bool:
    return measured.time_share <= (1 + GOAL_TOLERANCE) * budget


def _nearest(tried: list[Measured], budget: float) -> Measured:
    """Return what is nearest to a time, of those that keep to it if any does."""

    def rank(measured: Measured) -> tuple[bool, float]:
        return not _in_time(measured, budget), abs(measured.time_share - budget)

    return min(tried, key=rank)


def _preset_at(dense: nn.Module, at: str, share: float, measure: Measure) -> BATConfig:
    """Return the preset at a share of the dense model's time or MACs."""
    if share >= 1:
        raise OutOfReachError("tuned saves nothing over the dense model")
    family = Family.of("bat", dense)
    if at == "MACs":
        return at_macs(dense, family, share)

    def time_share(config: BATConfig) -> float:
        return 1 / measure(config).speedup

    config, _ = at_time(dense, family, share, time_share)
    return config
