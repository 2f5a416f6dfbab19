"""Search for the configuration of BAT that keeps most within a budget, on pictures that need no labels."""

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from torch import nn

from batvit.backbones.adapter import Anatomy
from batvit.backbones.patch import reduced_copy
from batvit.backbones.registry import anatomy_of
from batvit.config.config import BATConfig
from batvit.tune.objective import TuningSet, judge
from batvit.tune.space import Candidate, Cost, least
from batvit.tune.trials import (
    RETRIED,
    complete,
    cut_short,
    failures,
    finished,
    leaders,
    optuna_part,
)

DROP_WEIGHT = 0.1
DEPTH, BEGIN_BUDGET = 12, 0.6
HOPELESS = 5
FRONT_SHAPES, FRONT_AT = 2, (0.8, 0.9, 1.1, 1.25)

# where a search begins: as the presets do, and with sites next to one another
BEGIN = (
    Candidate(3, 3, 9, 0.0, 0.5, 0.1, 2, "tokens", "importance", True),
    Candidate(6, 3, 8, 0.0, 0.6, 0.02, 2, "tokens", "importance", True),
    Candidate(3, 4, 6, 0.5, 0.5, 0.1, 2, "keys", "importance", True),
)


@dataclass(frozen=True)
class Goal:
    """What is wanted: the least loss within a budget, or the least cost within a drop."""

    budget: float | None = None
    """share of the dense model's cost that may be spent"""
    max_drop: float | None = None
    """points that may be lost"""


@dataclass(frozen=True)
class Search:
    """Tries shapes, each with as many tokens as the budget allows; every trial is kept in the study, which goes on from it."""

    dense: nn.Module
    """a supported model; it is left alone"""
    data: TuningSet
    cost: Cost
    """what a configuration costs, as a share of the dense model"""
    goal: Goal
    study: Any
    """of ``open_study``; each complete trial holds its ``shape``, ``config``, ``cost``, ``loss`` and ``drop``"""
    before: Any = None
    """the study of a part before, if there is one: its best shapes are tried anew, at what they are known to cost by now"""

    @property
    def anatomy(self) -> Anatomy:
        """Of the dense model."""
        return anatomy_of(self.dense)

    def run(
        self,
        *,
        trials: int | None = None,
        seconds: float | None = None,
        progress: Callable[[], None] = lambda: None,
    ) -> None:
        """Search until so many trials are finished in all, or for so long.

        A trial in which torch fails is left, and the search goes on; unless the first few all fail.

        Args:
            trials: of this and earlier runs together; no limit when None.
            seconds: of this run; no limit when None.
            progress: called after each trial.

        Raises:
            ValueError: if nothing costs so little, naming the nearest; a later part is left out instead, as there is something.
        """
        nearest = least(self.cost, self.anatomy)
        if self.goal.budget is not None and self.goal.budget < nearest:
            if self.before is not None:
                return
            raise ValueError(
                f"no configuration goes down to {self.goal.budget:.3g} of the dense model's cost; the nearest that can be had "
                f"is {nearest:.3g}, {1 / nearest:.2f} times less"
            )

        def told(study: Any, trial: Any) -> None:
            progress()
            if len(failures(study)) >= HOPELESS and not complete(study):
                study.stop()

        self._enqueue()
        left = None if trials is None else max(0, trials - finished(self.study))
        if left != 0:
            self.study.optimize(
                self.objective,
                n_trials=left,
                timeout=seconds,
                catch=(RuntimeError,),
                callbacks=[told],
            )

    def objective(self, trial: Any) -> float:
        """What one trial comes to: the loss, or with a largest drop the cost, and a penalty for what is lost beyond."""
        pruned = optuna_part("optuna").TrialPruned
        shape = Candidate.suggest(trial, self.anatomy.depth)
        budget = (
            trial.suggest_float("budget", 0.2, 0.95)
            if self.goal.budget is None
            else self.goal.budget
        )
        config = shape.within(budget, self.cost, self.anatomy)
        if config is None:
            raise pruned("no count of tokens is within the budget")

        def report(step: int, loss: float) -> None:
            trial.report(loss, step)
            # hopeless trials are left after a part of the pictures
            if self.goal.budget is not None and trial.should_prune():
                raise pruned

        try:
            found = self.judged(config, report)
        except RuntimeError as error:
            trial.set_user_attr("failed", " ".join(str(error).split()))
            raise
        if not math.isfinite(found["loss"]):
            raise pruned("the loss is not finite")
        for name, value in (found | {"shape": asdict(shape)}).items():
            trial.set_user_attr(name, value)
        if self.goal.max_drop is None:
            return float(found["loss"])
        return float(found["cost"] + DROP_WEIGHT * max(0.0, found["drop"] - self.goal.max_drop))

    def judged(
        self, config: BATConfig, report: Callable[[int, float], None] = lambda step, loss: None
    ) -> dict[str, Any]:
        """A configuration with its cost, loss and drop."""
        found = judge(reduced_copy(self.dense, config), self.data, report)
        return {"config": config.to_dict(), "cost": self.cost(config), **found.to_dict()}

    def around(self) -> list[dict[str, Any]]:
        """What the best shapes come to for less and for more than the budget, which all trials spend alike."""
        if self.goal.budget is None:
            return []
        best = [
            Candidate(**trial.user_attrs["shape"]) for trial in leaders(self.study)[:FRONT_SHAPES]
        ]
        budgets = [part * self.goal.budget for part in FRONT_AT if part * self.goal.budget < 1]
        found = [
            shape.within(budget, self.cost, self.anatomy) for shape in best for budget in budgets
        ]
        return [self.judged(config) for config in dict.fromkeys(found) if config is not None]

    def _enqueue(self) -> None:
        """What an interrupt cut short, once more; and where to begin, as far as it was not tried."""
        for params in cut_short(self.study):
            self.study.enqueue_trial(params)
        wanted = list[dict[str, Any]]()
        if self.before is not None:
            wanted = [trial.params for trial in leaders(self.before)[:RETRIED]]
        elif self.anatomy.depth == DEPTH:
            more = {"budget": BEGIN_BUDGET} if self.goal.budget is None else {}
            wanted = [asdict(shape) | more for shape in BEGIN]
        for params in wanted:
            self.study.enqueue_trial(params, skip_if_exists=True)


def best_of(study: Any, goal: Goal) -> dict[str, Any]:
    """What the best trial that meets the goal came to.

    Raises:
        ValueError: if none does, naming the nearest.
    """
    done, failed = complete(study), failures(study)
    if not done:
        why = f"; {len(failed)} failed: {failed[-1]}" if failed else ""
        raise ValueError(
            f"no configuration tried is within the budget{why}; allow more trials, minutes, or cost"
        )
    if goal.max_drop is None:
        return min(done, key=lambda trial: float(trial["loss"]))
    within = [trial for trial in done if trial["drop"] <= goal.max_drop]
    if not within:
        nearest = min(done, key=lambda trial: float(trial["drop"]))
        raise ValueError(
            f"no configuration loses at most {goal.max_drop:g} points; the nearest loses {nearest['drop']:.2f} at "
            f"{nearest['cost']:.2f} of the cost; allow more trials, minutes, or points"
        )
    return min(within, key=lambda trial: float(trial["cost"]))


def front_of(found: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Those that none beats in both cost and loss, the cheapest first."""
    front: list[dict[str, Any]] = []
    for one in sorted(found, key=lambda one: (one["cost"], one["loss"])):
        if not front or one["loss"] < front[-1]["loss"]:
            front.append(one)
    return front
