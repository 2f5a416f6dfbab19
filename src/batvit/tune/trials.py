"""The journal of a search: Optuna's studies in a folder, one for each part of the search, new or as they were left."""

import importlib
import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

FIRST_TRIALS = 24
# of the part before, with which the next begins
RETRIED = 12
JOURNAL = "trials.journal"


def optuna_part(name: str) -> Any:
    """A module of Optuna, which is installed on request.

    Raises:
        ValueError: if it is not installed, saying how to.
    """
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise ValueError(f"a search needs optuna: pip install 'batvit[tune]' ({error})") from error


def studies(folder: Path) -> list[Any]:
    """Optuna's studies in a folder, one for each part of the search, in order."""
    optuna, storage = optuna_part("optuna"), _storage(folder)
    known = optuna.get_all_study_names(storage)
    names = itertools.takewhile(known.__contains__, map(_name, itertools.count()))
    return [optuna.load_study(study_name=name, storage=storage) for name in names]


def open_study(folder: Path, *, seed: int, part: int = 0) -> Any:
    """The study of a part of the search, new or as it was left."""
    optuna = optuna_part("optuna")
    study = optuna.create_study(
        study_name=_name(part), storage=_storage(folder), load_if_exists=True
    )
    # what was drawn before must not be drawn again
    drawn = sum(len(each.trials) for each in studies(folder))
    first = RETRIED if part else FIRST_TRIALS
    study.sampler = optuna.samplers.TPESampler(seed=seed + drawn, n_startup_trials=first)
    study.pruner = optuna.pruners.MedianPruner(n_startup_trials=first)
    return study


def finished(study: Any) -> int:
    """How many trials came to an end, or were left as hopeless."""
    return sum(trial.state.name in ("COMPLETE", "PRUNED") for trial in study.trials)


def failures(study: Any) -> list[str]:
    """Why trials failed."""
    return [trial.user_attrs["failed"] for trial in study.trials if "failed" in trial.user_attrs]


def cut_short(study: Any) -> list[dict[str, Any]]:
    """The parameters of trials that an interrupt ended, and that were not tried again, each once."""
    found, known = list[dict[str, Any]](), list[dict[str, Any]]()
    for trial in study.trials:
        params = trial.system_attrs.get("fixed_params", {}) | trial.params
        ended = trial.state.name in ("RUNNING", "FAIL") and "failed" not in trial.user_attrs
        (found if ended else known).append(params)
    return [
        params for i, params in enumerate(found) if params not in known and params not in found[:i]
    ]


def complete(study: Any) -> list[dict[str, Any]]:
    """What all complete trials came to."""
    return [trial.user_attrs for trial in study.trials if trial.state.name == "COMPLETE"]


def leaders(study: Any) -> list[Any]:
    """The best complete trial for each set of blocks, the best first."""
    best = sorted(
        (trial for trial in study.trials if trial.state.name == "COMPLETE"),
        key=lambda trial: float(trial.value),
    )
    found = dict[tuple[int, ...], Any]()
    for trial in best:
        found.setdefault(tuple(trial.user_attrs["config"]["blocks"]), trial)
    return list(found.values())


def newest(known: Sequence[Any]) -> Any:
    """The last study in which a trial is complete; None if there is none."""
    return next((study for study in reversed(known) if complete(study)), None)


def _name(part: int) -> str:
    return f"part {part}"


def _storage(folder: Path) -> Any:
    optuna, journal = optuna_part("optuna"), optuna_part("optuna.storages.journal")
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    return optuna.storages.JournalStorage(journal.JournalFileBackend(str(folder / JOURNAL)))
