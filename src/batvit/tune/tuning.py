"""A whole tuning: fit the cost, search in parts, measure the best, check it on other pictures."""

import json
import random
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import nn

from batvit.checks import installed
from batvit.data.folder import Pictures
from batvit.data.loading import data_config, loader
from batvit.measure.pareto import pareto_front
from batvit.measure.speed import noise
from batvit.reduction.site import config_of
from batvit.storage.files import check_folder, no_room_named, read_json, write_atomic
from batvit.storage.provenance import git_commit, machine, model_metadata, stamped
from batvit.storage.run_folder import check_new, check_same, claimed, digest
from batvit.storage.weights import weights_digest
from batvit.tune.objective import TuningSet
from batvit.tune.parts import search_in_parts
from batvit.tune.result import Tuned, save_front
from batvit.tune.search import Search
from batvit.tune.settings import Job, Progress, Settings
from batvit.tune.trials import JOURNAL, Trial, complete, mend_journal
from batvit.tune.verification import verify

METADATA = "metadata.json"
# what must be the same when a search is resumed
SAME = ("labels", "samples", "batch_size", "seed", "target_speedup", "target_macs", "max_drop")


def run(
    dense: nn.Module,
    pictures: Pictures,
    folder: str | Path,
    *,
    target_speedup: float | None = None,
    target_macs: float | None = None,
    max_drop: float | None = None,
    labels: bool = False,
    samples: int = 200,
    held_out: int | None = None,
    minutes: float = 12.0,
    trials: int | None = None,
    seed: int = 0,
    batch_size: int = 32,
    workers: int = 0,
    resume: bool = False,
    metadata: Mapping[str, Any] | None = None,
    progress: Progress | None = None,
) -> Tuned:
    """Search for the configuration of BAT that keeps most within a budget, and check it.

    Give one of ``target_speedup``, ``target_macs`` and ``max_drop``. The folder then holds the best
    configuration (``config.json``), the front (``front.csv``), all that was found
    (``result.json``), and what a search resumes from. An interrupt leaves the best so far in
    ``config.json``. On Linux this changes how the whole process allocates memory, for good: see
    :func:`batvit.measure.clock.keep_freed_memory`.

    Args:
        dense: a supported classifier without a reduction, on its device and in its precision; it is
            put into eval mode.
        pictures: to search on, and others to check on; labels are not needed unless ``labels``.
        folder: a new one, or one to go on in; its parent exists.
        target_speedup: times as fast as the dense model, as measured here.
        target_macs: multiply-accumulates, or below 1 a share of the dense model's.
        max_drop: points of top-1 that may be lost at most; needs ``labels``.
        labels: let the labels of the pictures decide; the dense model's answers do otherwise.
        samples: pictures to search on, drawn by the seed.
        held_out: other pictures, on which the result is checked; as many by default.
        minutes: how long to search at most.
        trials: how many configurations to try at most, with those of earlier runs.
        seed: of the search.
        batch_size: pictures a batch, for times and for losses.
        workers: processes that decode pictures; 0 decodes in this one.
        resume: go on with the search in the folder, with the same arguments, pictures and weights.
        metadata: plain values that must be the same when a search is resumed, such as ``model`` and
            ``data``. ``weights`` stands for the weights of the model; by default their digest.
        progress: called with what is done next, and after each trial.

    Raises:
        ValueError, TypeError: before anything is computed or written, if an argument is wrong, or
            the folder was begun with something else; later, if the dense model's logits are not
            finite, or nothing meets the goal.
        FileExistsError: if the folder holds a search that is not to be resumed, or another run is
            writing into it.
        OSError: if the folder cannot be written.

    Examples:
        >>> from batvit.data.folder import unlabelled
        >>> model = timm.create_model("vit_tiny_patch16_224", img_size=64, depth=4, num_classes=2)
        >>> tuned = batvit.tune.run(
        ...     model, unlabelled("pictures"), "tuned", target_macs=0.8, samples=4, trials=1
        ... )
        >>> (tuned.folder / "config.json").exists()
        True
    """
    settings = Settings(
        target_speedup=target_speedup,
        target_macs=target_macs,
        max_drop=max_drop,
        labels=labels,
        samples=samples,
        held_out=held_out,
        minutes=minutes,
        trials=trials,
        seed=seed,
        batch_size=batch_size,
        workers=workers,
    )
    folder = check_ready(folder, resume=resume)
    return _run(dense, pictures, folder, settings, metadata or {}, progress or _ignore)


def check_ready(folder: str | Path, *, resume: bool) -> Path:
    """Refuse to search where that cannot be.

    Raises:
        ValueError: if Optuna is not installed.
        FileExistsError: if the folder holds a search that is not to be resumed.
        OSError: if the folder cannot be written.
    """
    installed("optuna")
    folder = check_folder(folder)
    check_new(folder, [JOURNAL], what="a search", resume=resume)
    return folder


def _ignore(text: str, trials: int) -> None:
    """Tell nobody."""


def _run(
    dense: nn.Module,
    pictures: Pictures,
    folder: Path,
    settings: Settings,
    metadata: Mapping[str, Any],
    progress: Progress,
) -> Tuned:
    """Read the pictures, search, and check what was found."""
    if config_of(dense) is not None:
        raise ValueError("the model has a reduction; call batvit.unpatch(model) first")
    goal = settings.goal(dense)
    searched, held_out = _split(pictures, settings)
    metadata = _metadata(dense, searched, settings, metadata)
    with claimed(folder), no_room_named(folder / JOURNAL):
        mend_journal(folder)
        if (folder / METADATA).exists():
            check_same(folder, read_json(folder / METADATA), metadata)
        progress("reading the pictures", 0)
        job = Job(
            dense=dense,
            settings=settings,
            goal=goal,
            folder=folder,
            searched=_tuning_set(dense, searched, settings),
            held_out=_tuning_set(dense, held_out, settings),
            images=noise(dense, settings.batch_size),
            progress=progress,
        )
        # not before all pictures were read: those that cannot be are left out the next time
        write_atomic(folder / METADATA, json.dumps(metadata, indent=2) + "\n")
        search = search_in_parts(job)
        front = _front(search)
        if front:
            save_front(folder, front)
        tuned = verify(job, search, front, model=metadata["model"])
        tuned.save()
    return tuned


def _split(pictures: Pictures, settings: Settings) -> tuple[Pictures, Pictures]:
    """Draw pictures to search on, and others to check on."""
    if settings.labels and not pictures.classes:
        raise ValueError("labels=True: the pictures have no labels; give one folder a class")
    searched = settings.samples
    needed = searched + settings.held_out_samples
    if len(pictures) < needed:
        raise ValueError(
            f"there are {len(pictures)} pictures, samples={searched} and "
            f"held_out={settings.held_out_samples} need {needed}; lower them"
        )
    shuffled = list(pictures.samples)
    random.Random(settings.seed).shuffle(shuffled)  # noqa: S311 - no secret
    return (
        replace(pictures, samples=shuffled[:searched]),
        replace(pictures, samples=shuffled[searched:needed]),
    )


def _tuning_set(dense: nn.Module, pictures: Pictures, settings: Settings) -> TuningSet:
    batches = loader(pictures, dense, batch_size=settings.batch_size, workers=settings.workers)
    return TuningSet.of(dense, list(batches), labelled=settings.labels)


def _metadata(
    dense: nn.Module, searched: Pictures, settings: Settings, given: Mapping[str, Any]
) -> dict[str, Any]:
    """Return what must be the same when a search is resumed."""
    weight = next(dense.parameters())
    metadata = model_metadata(dense, given)
    if "weights" not in metadata:
        metadata["weights"] = weights_digest(dense)
    for name in SAME:
        metadata[name] = getattr(settings, name)
    metadata["img_size"] = list(data_config(dense)["input_size"][1:])
    metadata["pictures"] = digest(stamped(searched.samples))
    metadata["commit"] = git_commit()
    if settings.timed:
        metadata |= machine(str(weight.device))
    return metadata


def _front(search: Search) -> tuple[Trial, ...]:
    """Return what nothing that was tried beats in both cost and loss."""
    tried = [*complete(search.study), *search.around()]
    front = pareto_front(tried, cost=lambda trial: trial.cost, loss=lambda trial: trial.loss)
    return tuple(front)
