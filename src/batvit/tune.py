"""Search for the configuration of BAT that keeps most within a budget, on pictures that need no labels."""

import importlib
import math
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from torch import nn

from batvit.backbones.anatomy import Anatomy
from batvit.backbones.patch import anatomy_of, reduced_copy
from batvit.calibration import Calibration, judge
from batvit.config import BATConfig
from batvit.cost import Cost

HALVINGS = 20
FIRST_TRIALS = 24
JOURNAL = "trials.journal"
STUDY = "batvit"
DROP_WEIGHT = 0.1
DEPTH, BEGIN_BUDGET = 12, 0.6
NEIGHBOURS = (0, 2, 3, 5)


@dataclass(frozen=True)
class Shape:
    """A configuration but for how many tokens it leaves: what is searched."""

    sites: int
    first: int
    """the first block that reduces"""
    last: int
    """the last one; the others lie evenly between"""
    curve: float
    """tokens fall evenly from site to site at 1, early below, late above"""
    centres: float
    pairs: float
    neighbours: int
    """0 for all"""
    similarity: str
    weight: str
    size_aware: bool

    @classmethod
    def suggest(cls, trial: Any, depth: int) -> "Shape":
        """One that a trial of Optuna wants tried, for a model of ``depth`` blocks."""
        return cls(
            sites=trial.suggest_int("sites", 1, depth),
            first=trial.suggest_int("first", 0, (depth - 1) // 2),
            last=trial.suggest_int("last", depth // 2, depth - 1),
            curve=trial.suggest_float("curve", 0.4, 1.6),
            centres=trial.suggest_float("centres", 0.05, 1.0),
            pairs=trial.suggest_float("pairs", 0.0, 0.4),
            neighbours=trial.suggest_categorical("neighbours", NEIGHBOURS),
            similarity=trial.suggest_categorical("similarity", ("tokens", "keys")),
            weight=trial.suggest_categorical("weight", ("importance_size", "size", "importance")),
            size_aware=trial.suggest_categorical("size_aware", (True, False)),
        )

    def at(self, final: float, anatomy: Anatomy) -> BATConfig:
        """The configuration that leaves ``final`` tokens after the last site.

        Where the head reads the class token alone, nobody reads the others after the last attention: they become one, so that
        its MLP costs nothing.

        Raises:
            ValueError: if its counts do not fit one another.
        """
        patches, span, steps = anatomy.patches, self.last - self.first, max(self.sites - 1, 1)
        blocks = sorted({round(self.first + span * i / steps) for i in range(self.sites)})
        falls = [((i + 1) / len(blocks)) ** self.curve for i in range(len(blocks))]
        tokens = [max(1, round(patches - (patches - final) * fall)) for fall in falls]
        if not anatomy.reads_patches:
            blocks, tokens = [*blocks, anatomy.depth - 1], [*tokens, 1]
            if blocks[-2] == blocks[-1]:
                del blocks[-2], tokens[-2]
        fields = {name: value for name, value in asdict(self).items() if name not in ("sites", "first", "last", "curve")}
        return BATConfig(blocks=tuple(blocks), tokens=tuple(tokens), **(fields | {"neighbours": self.neighbours or None}))

    def within(self, budget: float, cost: Cost, anatomy: Anatomy) -> BATConfig | None:
        """The one that leaves most tokens within a budget; None if none does."""
        low, high, best = 1.0, float(anatomy.patches), None
        for _ in range(HALVINGS):
            middle = (low + high) / 2
            config = self.at(middle, anatomy)
            if cost(config) <= budget:
                low, best = middle, config
            else:
                high = middle
            if high - low < 0.5:
                break
        return best


# where a search begins: three sites as in the preset, six, and nearly every block
BEGIN = (
    Shape(3, 3, 9, 1.0, 0.5, 0.1, 2, "tokens", "importance_size", True),
    Shape(6, 1, 10, 0.9, 0.5, 0.1, 3, "tokens", "size", True),
    Shape(10, 0, 11, 1.0, 0.5, 0.2, 0, "tokens", "importance_size", True),
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
    """Tries shapes, each with as many tokens as the budget allows; every trial is kept in a journal, from which it goes on."""

    dense: nn.Module
    """a supported model; it is left alone"""
    data: Calibration
    cost: Cost
    """what a configuration costs, as a share of the dense model"""
    goal: Goal
    folder: Path
    """for the journal"""
    seed: int = 0

    def run(
        self,
        *,
        trials: int | None = None,
        seconds: float | None = None,
        progress: Callable[[Any], None] = lambda study: None,
    ) -> Any:
        """Search until there are so many trials in all, or for so long.

        Args:
            trials: of this and earlier runs together; no limit when None.
            seconds: of this run; no limit when None.
            progress: called with the study after each trial.

        Returns:
            Optuna's study; each complete trial holds its ``config``, ``cost``, ``loss`` and ``drop`` as user attributes.
        """
        study = open_study(self.folder, seed=self.seed)
        depth, done = anatomy_of(self.dense).depth, len(study.trials)
        if not done and depth == DEPTH:
            for shape in BEGIN:
                study.enqueue_trial(asdict(shape) | ({"budget": BEGIN_BUDGET} if self.goal.budget is None else {}))
        left = None if trials is None else max(0, trials - done)
        if left != 0:
            study.optimize(self.objective, n_trials=left, timeout=seconds, callbacks=[lambda study, trial: progress(study)])
        return study

    def objective(self, trial: Any) -> float:
        """What one trial comes to: the loss, or with a largest drop the cost, and a penalty for what is lost beyond."""
        pruned, anatomy = optuna_part("optuna").TrialPruned, anatomy_of(self.dense)
        shape = Shape.suggest(trial, anatomy.depth)
        budget = trial.suggest_float("budget", 0.2, 0.95) if self.goal.budget is None else self.goal.budget
        try:
            config = shape.within(budget, self.cost, anatomy)
        except ValueError as error:
            raise pruned(str(error)) from error
        if config is None:
            trial.set_user_attr("leanest", self.cost(shape.at(1.0, anatomy)))
            raise pruned("no count of tokens is within the budget")

        def report(step: int, loss: float) -> None:
            trial.report(loss, step)
            # hopeless trials are left after a part of the pictures
            if self.goal.budget is not None and trial.should_prune():
                raise pruned

        found, cost = judge(reduced_copy(self.dense, config), self.data, report), self.cost(config)
        if not math.isfinite(found.loss):
            raise pruned("the loss is not finite")
        for name, value in (("config", config.to_dict()), ("cost", cost), *found._asdict().items()):
            trial.set_user_attr(name, value)
        return found.loss if self.goal.max_drop is None else cost + DROP_WEIGHT * max(0.0, found.drop - self.goal.max_drop)


def optuna_part(name: str) -> Any:
    """A module of Optuna, which is installed on request.

    Raises:
        ValueError: if it is not installed, saying how to.
    """
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise ValueError(f"a search needs optuna: pip install 'batvit[tune]' ({error})") from error


def open_study(folder: Path, *, seed: int) -> Any:
    """The study in a folder, new or as it was left."""
    optuna, journal = optuna_part("optuna"), optuna_part("optuna.storages.journal")
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    storage = optuna.storages.JournalStorage(journal.JournalFileBackend(str(folder / JOURNAL)))
    study = optuna.create_study(study_name=STUDY, storage=storage, load_if_exists=True)
    # what was drawn before must not be drawn again
    study.sampler = optuna.samplers.TPESampler(seed=seed + len(study.trials), n_startup_trials=FIRST_TRIALS)
    study.pruner = optuna.pruners.MedianPruner(n_startup_trials=FIRST_TRIALS)
    return study


def best_of(study: Any, goal: Goal) -> dict[str, Any]:
    """The user attributes of the best trial that meets the goal.

    Raises:
        ValueError: if none does, naming the nearest.
    """
    done = front_of(study, everything=True)
    if not done:
        leanest = [trial.user_attrs["leanest"] for trial in study.trials if "leanest" in trial.user_attrs]
        found = f"; the leanest costs {min(leanest):.3f} of the dense model" if leanest else ""
        raise ValueError(f"no configuration tried is within the budget{found}; allow more trials, minutes, or cost")
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


def front_of(study: Any, *, everything: bool = False) -> list[dict[str, Any]]:
    """The trials that none beats in both cost and loss, the cheapest first; or all complete ones."""
    done = [t.user_attrs for t in study.trials if t.state.name == "COMPLETE"]
    done.sort(key=lambda trial: (trial["cost"], trial["loss"]))
    front: list[dict[str, Any]] = []
    for trial in done:
        if everything or not front or trial["loss"] < front[-1]["loss"]:
            front.append(trial)
    return front
