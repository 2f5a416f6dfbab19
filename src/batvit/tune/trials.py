"""The journal of a search: Optuna's studies in a folder, one for each part of the search."""

import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from batvit.checks import installed
from batvit.config import BATConfig
from batvit.tune.space import Candidate

# trials drawn at random before Optuna's sampler proposes, and before a trial may be hopeless
FIRST_TRIALS = 24
# the best trials of a part, with which the next part begins
RETRIED = 12
JOURNAL = "trials.journal"
# under which a study keeps the seed of its draws, and which part of the search it is
SEED = "seed"


@dataclass(frozen=True)
class Trial:
    """A configuration that was tried, and what came of it."""

    candidate: Candidate
    config: BATConfig
    """the candidate, with as many tokens as the budget allowed"""
    cost: float
    """predicted, as a share of the dense model's"""
    loss: float
    drop: float

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, as Optuna keeps them."""
        return {
            "config": self.config.to_dict(),
            "cost": self.cost,
            "loss": self.loss,
            "drop": self.drop,
            "candidate": asdict(self.candidate),
        }

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "Trial":
        """Return the inverse of :meth:`to_dict`."""
        return cls(
            candidate=Candidate(**values["candidate"]),
            config=BATConfig.from_dict(values["config"]),
            cost=values["cost"],
            loss=values["loss"],
            drop=values["drop"],
        )


class ClaimedFolder:
    """A lock of Optuna's for a journal that has one: that of the folder, claimed for the search.

    Unlike Optuna's own it does not outlive a killed process.
    """

    def acquire(self) -> bool:
        """Do nothing."""
        return True

    def release(self) -> None:
        """Do nothing."""


def mend_journal(folder: Path) -> None:
    """Cut off the end of a journal that a killed process, or a full disk, left half-written."""
    journal = folder / JOURNAL
    if not journal.is_file():
        return
    content = journal.read_bytes()
    whole = content.rfind(b"\n") + 1
    if whole < len(content):
        os.truncate(journal, whole)


def studies(folder: Path) -> list[Any]:
    """Return Optuna's studies in a folder, one for each part of the search, in order."""
    optuna = installed("optuna")
    storage = _storage(folder)
    names = optuna.get_all_study_names(storage)
    parts: list[Any] = []
    while _name(len(parts)) in names:
        parts.append(optuna.load_study(study_name=_name(len(parts)), storage=storage))
    return parts


def open_study(folder: Path, *, seed: int, part: int = 0) -> Any:
    """Return the study of a part of the search, new or as it was left.

    What a killed process was trying waits again in its place if it was enqueued; else it counts as
    failed, and is drawn again.
    """
    optuna = installed("optuna")
    study = optuna.create_study(
        study_name=_name(part), storage=_storage(folder), load_if_exists=True
    )
    study.set_user_attr(SEED, [seed, part])
    study.pruner = optuna.pruners.MedianPruner(n_startup_trials=_startup_trials(part))
    states = optuna.trial.TrialState
    for trial in study.get_trials(states=(states.RUNNING,)):
        state = states.WAITING if "fixed_params" in trial.system_attrs else states.FAIL
        study._storage.set_trial_state_values(trial._trial_id, state=state)
    seed_sampler(study)
    return study


def seed_sampler(study: Any) -> None:
    """Let the next draw depend on the seed and on the trials that came to an end, on nothing else.

    So a search that was stopped goes on as if it had not been.
    """
    seed, part = study.user_attrs[SEED]
    ended = count_finished(study) + len(failures(study))
    state = np.random.SeedSequence([seed, part, ended]).generate_state(1)
    study.sampler = installed("optuna").samplers.TPESampler(
        seed=int(state[0]), n_startup_trials=_startup_trials(part)
    )


def count_finished(study: Any) -> int:
    """Count the trials that came to an end, or were left as hopeless."""
    return sum(trial.state.name in ("COMPLETE", "PRUNED") for trial in study.trials)


def count_all_finished(folder: Path) -> int:
    """Count the trials of all parts that came to an end, or were left as hopeless."""
    return sum(count_finished(study) for study in studies(folder))


def failures(study: Any) -> list[str]:
    """Return why trials failed."""
    return [trial.user_attrs["failed"] for trial in study.trials if "failed" in trial.user_attrs]


def cut_short(study: Any) -> list[dict[str, Any]]:
    """Return the parameters of trials that an interrupt ended and that were not tried again.

    These are the ones that were enqueued; all others are drawn again as they were.
    """
    interrupted = []
    tried = []
    for trial in study.trials:
        params = trial.system_attrs.get("fixed_params", {})
        if trial.state.name == "FAIL" and params and "failed" not in trial.user_attrs:
            interrupted.append(params)
        else:
            tried.append(params)
    left = []
    for params in interrupted:
        if params not in tried and params not in left:
            left.append(params)
    return left


def complete(study: Any) -> list[Trial]:
    """Return all complete trials, in the order in which they were tried."""
    return [Trial.from_dict(trial.user_attrs) for trial in _complete(study)]


def losses(study: Any) -> list[float]:
    """Return the losses of all complete trials."""
    return [trial.user_attrs["loss"] for trial in _complete(study)]


def leaders(study: Any) -> list[Trial]:
    """Return the best complete trial for each set of blocks, the best first."""
    best_first = sorted(_complete(study), key=lambda trial: float(trial.value))
    leading: dict[tuple[int, ...], Trial] = {}
    for stored in best_first:
        trial = Trial.from_dict(stored.user_attrs)
        assert trial.config.blocks is not None
        leading.setdefault(trial.config.blocks, trial)
    return list(leading.values())


def newest(parts: Sequence[Any]) -> Any:
    """Return the last study in which a trial is complete; None if there is none."""
    for study in reversed(parts):
        if _complete(study):
            return study
    return None


def _complete(study: Any) -> list[Any]:
    return [trial for trial in study.trials if trial.state.name == "COMPLETE"]


def _startup_trials(part: int) -> int:
    return RETRIED if part else FIRST_TRIALS


def _name(part: int) -> str:
    return f"part {part}"


def _storage(folder: Path) -> Any:
    optuna = installed("optuna")
    journal = installed("optuna.storages.journal")
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    backend = journal.JournalFileBackend(str(folder / JOURNAL), lock_obj=ClaimedFolder())
    return optuna.storages.JournalStorage(backend)
