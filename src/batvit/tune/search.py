"""The search itself: trials of candidates, scored on pictures, each within the budget."""

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from torch import nn

from batvit.backbones.adapter import Anatomy
from batvit.backbones.patch import reduced_copy
from batvit.backbones.registry import anatomy_of
from batvit.checks import installed
from batvit.config import BATConfig
from batvit.tune.objective import Score, TuningSet, score
from batvit.tune.space import Candidate, Cost, least_cost
from batvit.tune.trials import (
    RETRIED,
    Trial,
    complete,
    count_finished,
    cut_short,
    failures,
    leaders,
    losses,
    seed_sampler,
)

# what a point beyond the largest drop adds to the objective
DROP_WEIGHT = 0.1
# the budgets that are searched where only a largest drop is given
BUDGETS = (0.2, 0.95)
# a search in which the first trials all fail ends after so many
MAX_INITIAL_FAILURES = 5
FRONT_CANDIDATES = 2
FRONT_BUDGETS = (0.8, 0.9, 1.1, 1.25)

# where a search in a model of so many blocks begins: as the presets do, and with adjacent sites
BEGIN_DEPTH = 12
BEGIN_BUDGET = 0.6
BEGIN_AS_DEFAULT = Candidate(
    sites=3,
    first=3,
    last=9,
    decay=0.0,
    centres=0.5,
    pairs=0.1,
    neighbours=2,
    similarity="tokens",
    weight="importance",
    size_aware=True,
)
BEGIN = (
    BEGIN_AS_DEFAULT,
    replace(BEGIN_AS_DEFAULT, sites=6, last=8, centres=0.6, pairs=0.02),
    replace(BEGIN_AS_DEFAULT, first=4, last=6, decay=0.5, similarity="keys"),
)

Report = Callable[[int, float], None]
"""told the number of each batch and the mean loss so far; it may raise"""


@dataclass(frozen=True)
class Goal:
    """What is wanted: the least loss within a budget, or the least cost within a drop."""

    budget: float | None = None
    """share of the dense model's cost that may be spent"""
    max_drop: float | None = None
    """points that may be lost"""


@dataclass(frozen=True)
class Search:
    """Tries candidates, each with as many tokens as the budget allows.

    Every trial is kept in the study, from which a search resumes.
    """

    dense: nn.Module
    """a supported model; it is left alone"""
    data: TuningSet
    cost: Cost
    """what a configuration costs, as a share of the dense model"""
    goal: Goal
    study: Any
    """of :func:`batvit.tune.trials.open_study`"""
    before: Any = None
    """the study of the part before, if there is one: its best candidates are tried again with the
    updated cost model"""

    @property
    def anatomy(self) -> Anatomy:
        """The anatomy of the dense model."""
        return anatomy_of(self.dense)

    def run(
        self,
        *,
        trials: int | None = None,
        seconds: float | None = None,
        progress: Callable[[], None] = lambda: None,
    ) -> None:
        """Search until so many trials are finished in all, or for so long.

        A trial that raises RuntimeError is skipped; the search stops if the first five all fail. If
        no candidate fits the budget, a later part returns without trials, and the first one raises.

        Args:
            trials: of this and earlier runs together; no limit if None.
            seconds: of this run; no limit if None.
            progress: called after each trial.

        Raises:
            ValueError: if no candidate is cheap enough, naming the nearest.
        """
        nearest = least_cost(self.cost, self.anatomy)
        if self.goal.budget is not None and self.goal.budget < nearest:
            if self.before is not None:
                return
            raise ValueError(
                f"no configuration goes down to {self.goal.budget:.3g} of the dense model's cost; "
                f"the nearest that can be had is {nearest:.3g}, {1 / nearest:.2f} times less"
            )

        def after_trial(study: Any, trial: Any) -> None:
            seed_sampler(study)
            progress()
            if len(failures(study)) >= MAX_INITIAL_FAILURES and not losses(study):
                study.stop()

        self._enqueue()
        left = None
        if trials is not None:
            left = max(0, trials - count_finished(self.study))
        if left == 0:
            return
        self.study.optimize(
            self.objective,
            n_trials=left,
            timeout=seconds,
            catch=(RuntimeError,),
            callbacks=[after_trial],
        )

    def objective(self, trial: Any) -> float:
        """Return the value that Optuna minimises.

        That is the loss; with a largest drop it is the cost plus a penalty for exceeding the drop.
        """
        pruned = installed("optuna").TrialPruned
        candidate = Candidate.suggest(trial, self.anatomy.depth)
        budget = self.goal.budget
        if budget is None:
            budget = trial.suggest_float("budget", *BUDGETS)
        config = candidate.within(budget, self.cost, self.anatomy)
        if config is None:
            raise pruned("no count of tokens is within the budget")
        trial_score = self._score_trial(trial, config)
        if trial_score is None or not math.isfinite(trial_score.loss):
            raise pruned("the loss is not finite")
        result = self._result(candidate, config, trial_score)
        for name, value in result.to_dict().items():
            trial.set_user_attr(name, value)
        if self.goal.max_drop is None:
            return result.loss
        excess = max(0.0, result.drop - self.goal.max_drop)
        return result.cost + DROP_WEIGHT * excess

    def score_of(self, config: BATConfig, report: Report = lambda step, loss: None) -> Score | None:
        """Score a configuration on the pictures of the search; None if its logits are not finite.

        A ``report`` that raises ends it.
        """
        reduced = reduced_copy(self.dense, config)
        try:
            return score(reduced, self.data, report)
        except ValueError:
            # the dense model's logits are finite, so this configuration is at fault
            return None

    def loss_of(self, config: BATConfig) -> float:
        """Return the loss of a configuration; infinite if its logits are not finite."""
        config_score = self.score_of(config)
        return math.inf if config_score is None else config_score.loss

    def around(self) -> list[Trial]:
        """Score the best candidates below and above the budget, at which all trials are."""
        if self.goal.budget is None:
            return []
        tried: dict[BATConfig, Trial] = {}
        for leader in leaders(self.study)[:FRONT_CANDIDATES]:
            for factor in FRONT_BUDGETS:
                budget = factor * self.goal.budget
                if budget >= 1:
                    continue
                config = leader.candidate.within(budget, self.cost, self.anatomy)
                if config is None or config in tried:
                    continue
                config_score = self.score_of(config)
                if config_score is not None:
                    tried[config] = self._result(leader.candidate, config, config_score)
        return list(tried.values())

    def _score_trial(self, trial: Any, config: BATConfig) -> Score | None:
        """Score a configuration until Optuna prunes it; keep the reason if it fails."""
        pruned = installed("optuna").TrialPruned

        def report(step: int, loss: float) -> None:
            trial.report(loss, step)
            # a trial that is worse than most is pruned after a part of the pictures
            if self.goal.budget is not None and trial.should_prune():
                raise pruned

        try:
            return self.score_of(config, report)
        except RuntimeError as error:
            trial.set_user_attr("failed", " ".join(str(error).split()))
            raise

    def _result(self, candidate: Candidate, config: BATConfig, config_score: Score) -> Trial:
        return Trial(
            candidate=candidate,
            config=config,
            cost=self.cost(config),
            loss=config_score.loss,
            drop=config_score.drop,
        )

    def _enqueue(self) -> None:
        """Enqueue what an interrupt cut short, and where to begin, as far as it was not tried."""
        for params in cut_short(self.study):
            self.study.enqueue_trial(params)
        for params in self._first_params():
            self.study.enqueue_trial(params, skip_if_exists=True)

    def _first_params(self) -> list[dict[str, Any]]:
        """Return where to begin: with the best of the part before, or with what is known."""
        if self.before is not None:
            return [asdict(leader.candidate) for leader in leaders(self.before)[:RETRIED]]
        if self.anatomy.depth != BEGIN_DEPTH:
            return []
        params = [asdict(candidate) for candidate in BEGIN]
        if self.goal.budget is None:
            for values in params:
                values["budget"] = BEGIN_BUDGET
        return params


def best_or_none(trials: Sequence[Trial], goal: Goal) -> Trial | None:
    """Return the best of some complete trials that meets the goal; None if none does."""
    if goal.max_drop is None:
        return min(trials, key=lambda trial: trial.loss, default=None)
    within = [trial for trial in trials if trial.drop <= goal.max_drop]
    return min(within, key=lambda trial: trial.cost, default=None)


def best_of(study: Any, goal: Goal) -> Trial:
    """Return the best trial that meets the goal.

    Raises:
        ValueError: if none does, naming the nearest.
    """
    trials = complete(study)
    best = best_or_none(trials, goal)
    if best is not None:
        return best
    if not trials:
        failed = failures(study)
        why = f"; {len(failed)} failed: {failed[-1]}" if failed else ""
        raise ValueError(
            f"no configuration tried is within the budget{why}; allow more trials, minutes, or cost"
        )
    nearest = min(trials, key=lambda trial: trial.drop)
    raise ValueError(
        f"no configuration loses at most {goal.max_drop:g} points; the nearest loses "
        f"{nearest.drop:.2f} at {nearest.cost:.2f} of the cost; "
        "allow more trials, minutes, or points"
    )
