"""A whole comparison: every plan at the same MACs and the same time, on the same pictures."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from batvit.budget import contenders
from batvit.checks import check_interval, check_number
from batvit.compare.group_pictures import draw_groups
from batvit.compare.report import html
from batvit.compare.results import ROWS_FILE, Results
from batvit.compare.steps import fit_plans, score_plans, time_plans
from batvit.compare.stopwatch import Stopwatch
from batvit.compare.summary import Comparison, write_tables
from batvit.data.folder import Pictures
from batvit.data.loading import data_config, loader
from batvit.measure.speed import noise
from batvit.reduction.site import config_of
from batvit.storage.files import check_folder, write_atomic
from batvit.storage.provenance import (
    git_commit,
    machine,
    model_metadata,
    stamped,
    versions,
)
from batvit.storage.run_folder import check_new, claimed
from batvit.storage.weights import weights_digest


@dataclass(frozen=True)
class Stage:
    """What a comparison is doing.

    Examples:
        What ``progress`` of :func:`run` gets:

        >>> from batvit.compare import Stage
        >>> stage = Stage("looking at the pictures", done=64, total=256)
        >>> f"{stage.text}: {stage.done} of {stage.total}"
        'looking at the pictures: 64 of 256'
    """

    text: str
    done: int | None = None
    """pictures done so far, while the pictures are looked at"""
    total: int | None = None


@dataclass(frozen=True)
class Settings:
    """What is compared, and how; checked when it is made."""

    plans: Sequence[str]
    targets: Sequence[float]
    batch_size: int
    workers: int
    rounds: int
    samples: int | None = None
    """None for all"""
    drawn: int = 2

    def __post_init__(self) -> None:
        if not self.plans:
            raise ValueError(f"plans is empty; give some of {', '.join(contenders())}")
        for plan in self.plans:
            if plan not in contenders():
                raise ValueError(f"unknown plan {plan!r}; there are {', '.join(contenders())}")
        if not self.targets:
            raise ValueError("targets is empty; give shares of the dense model's cost, in (0, 1)")
        for target in self.targets:
            check_number("targets", target)
            if not 0 < target < 1:
                raise ValueError(
                    f"targets are shares of the dense model's cost, in (0, 1), got {target}"
                )
        # each once, the targets from the highest on; the way around a frozen dataclass
        object.__setattr__(self, "plans", tuple(dict.fromkeys(self.plans)))
        object.__setattr__(self, "targets", tuple(sorted(set(self.targets), reverse=True)))
        counts = (("batch_size", 1), ("workers", 0), ("rounds", 1), ("drawn", 0))
        for name, least in counts:
            check_interval(name, getattr(self, name), f"[{least}, inf)", kind=int)
        if self.samples is not None:
            check_interval("samples", self.samples, "[1, inf)", kind=int)


def run(
    dense: nn.Module,
    pictures: Pictures,
    folder: str | Path,
    *,
    plans: Sequence[str] | None = None,
    targets: Sequence[float] = (0.65, 0.5),
    batch_size: int = 32,
    workers: int = 0,
    rounds: int = 15,
    samples: int | None = None,
    drawn: int = 2,
    resume: bool = False,
    metadata: Mapping[str, Any] | None = None,
    command: str = "",
    progress: Callable[[Stage], None] = lambda stage: None,
) -> Comparison:
    """Compare reductions: every plan at the same MACs and at the same measured time.

    All plans of a target and the dense model are timed in one run, in turns, and all see the same
    pictures in one pass. What is found is kept in the folder after every step. On Linux this
    changes how the whole process allocates memory, for good: see
    :func:`batvit.measure.clock.keep_freed_memory`.

    Args:
        dense: a supported model without a reduction, on its device and in its precision.
        pictures: labelled, from :func:`batvit.data.folder.image_folder`.
        folder: a new one, or one to go on in; its parent exists.
        plans: names of :func:`batvit.budget.contenders`; all by default.
        targets: shares of the dense model's MACs, and of its time, in (0, 1).
        batch_size: pictures a batch, for times and for accuracy.
        workers: processes that decode pictures; 0 decodes in this one.
        rounds: measurements of each model.
        samples: how many of the pictures, taken evenly; all by default.
        drawn: how many pictures the report shows the groups of.
        resume: go on with the comparison in the folder. Plans and targets may be added; with other
            pictures or weights, the pictures alone are looked at again.
        metadata: plain values that must be the same when a comparison is resumed, and stand in its
            result, such as ``model`` and ``data``. The batch size, the rounds, the image size, the
            commit and the machine are added to them.
        command: how it was started, for the report.
        progress: called with what is done next, and after each batch of pictures.

    Raises:
        ValueError: before anything is computed or written, if an argument is wrong, or the folder
            was begun with something else; later, if the dense model's logits are not finite, or no
            plan meets a target.
        FileExistsError: if the folder holds a comparison that is not to be resumed, or another run
            is writing into it.
        OSError: if the folder cannot be written.

    Examples:
        >>> from batvit.data.folder import image_folder
        >>> dense = timm.create_model("vit_tiny_patch16_224", img_size=64, depth=4, num_classes=2)
        >>> pictures = image_folder("pictures", num_classes=2)
        >>> comparison = batvit.compare.run(
        ...     dense, pictures, "report", plans=["topk"], targets=[0.8], rounds=1, drawn=0
        ... )
        >>> comparison.rows[0].plan, comparison.report.name
        ('topk', 'report.html')
    """
    settings = Settings(
        plans=contenders() if plans is None else tuple(plans),
        targets=tuple(targets),
        batch_size=batch_size,
        workers=workers,
        rounds=rounds,
        samples=samples,
        drawn=drawn,
    )
    pictures = pictures.evenly(samples)
    _check_given(dense, pictures)
    folder = check_folder(folder)
    metadata = _metadata(dense, pictures, settings, metadata or {})
    with claimed(folder):
        results = Results.open(folder, metadata, resume=resume)
        _fit_and_time(results, dense, settings, progress)
        _score(results, dense, pictures, settings, progress)
        comparison = _comparison(results, samples=len(pictures), command=command)
        write_tables(comparison)
        pngs, notes = draw_groups(dense, pictures, comparison.rows, number=drawn)
        page = html(comparison.to_dict(), plot=comparison.plot.read_bytes(), pictures=pngs)
        write_atomic(comparison.report, page)
    return replace(comparison, notes=tuple(notes))


def check_ready(folder: str | Path, *, resume: bool) -> Path:
    """Refuse to compare where that cannot be.

    Raises:
        FileExistsError: if the folder holds a comparison that is not to be resumed.
        OSError: if the folder cannot be written.
    """
    folder = check_folder(folder)
    check_new(folder, (ROWS_FILE,), what="a comparison", resume=resume)
    return folder


def _check_given(dense: nn.Module, pictures: Pictures) -> None:
    """Refuse a model that is reduced, and pictures that say nothing of accuracy."""
    if config_of(dense) is not None:
        raise ValueError("the model has a reduction; call batvit.unpatch(model) first")
    if not pictures.samples:
        raise ValueError("pictures is empty; give at least one")
    if not pictures.classes:
        raise ValueError("the pictures have no labels; give one folder a class")


def _fit_and_time(
    results: Results, dense: nn.Module, settings: Settings, progress: Callable[[Stage], None]
) -> None:
    """Fit every plan to every target, and time all of them in turns."""

    def say(text: str) -> None:
        progress(Stage(text))

    stopwatch = Stopwatch(dense, noise(dense, settings.batch_size), settings.rounds)
    fit_plans(results, stopwatch, plans=settings.plans, targets=settings.targets, progress=say)
    time_plans(results, stopwatch, progress=say)
    results.check_any()


def _score(
    results: Results,
    dense: nn.Module,
    pictures: Pictures,
    settings: Settings,
    progress: Callable[[Stage], None],
) -> None:
    """Show all models the pictures."""

    def batches(start: int) -> Iterable[tuple[Tensor, Tensor]]:
        left = replace(pictures, samples=pictures.samples[start:])
        return loader(left, dense, batch_size=settings.batch_size, workers=settings.workers)

    def count(done: int) -> None:
        progress(Stage("pictures", done, len(pictures)))

    count(0)
    weights = weights_digest(dense)
    score_plans(
        results, dense, batches, samples=stamped(pictures.samples), weights=weights, progress=count
    )
    results.check_any()


def _metadata(
    dense: nn.Module, pictures: Pictures, settings: Settings, given: Mapping[str, Any]
) -> dict[str, Any]:
    """Return what must be the same when a comparison is resumed."""
    weight = next(dense.parameters())
    first_picture, _ = pictures.samples[0]
    metadata = model_metadata(dense, given)
    metadata.setdefault("data", str(first_picture.parent.parent))
    return metadata | {
        "batch_size": settings.batch_size,
        "rounds": settings.rounds,
        "img_size": list(data_config(dense)["input_size"][1:]),
        "commit": git_commit(),
        **machine(str(weight.device)),
    }


def _comparison(results: Results, *, samples: int, command: str) -> Comparison:
    """Return the results, with how they came about."""
    installed = versions()
    environment: dict[str, Any] = {}
    for name in ("cpu", "gpu", "torch", "threads", "commit"):
        environment[name] = results.metadata[name]
    for name in ("python", "timm", "batvit"):
        environment[name] = installed[name]
    environment["date"] = datetime.now(UTC).date().isoformat()
    origin = {"samples": samples, "command": command, "environment": environment}
    return Comparison(
        folder=results.folder,
        metadata=results.metadata | origin,
        dense=results.dense,
        rows=tuple(results.rows),
        failures=tuple(results.failures),
    )
