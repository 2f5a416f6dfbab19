"""A training run in a terminal."""

from collections.abc import Callable
from typing import Any

from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
)

from batvit.cli import console
from batvit.training.loop import fit
from batvit.training.progress import Epoch, Step


def fit_shown(
    *of_fit: Any, title: str, on_epoch: Callable[[Epoch], None] | None = None, **arguments: Any
) -> list[Epoch]:
    """:func:`batvit.training.loop.fit` with a bar on standard error that makes way for what ``on_epoch`` prints."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("updates, loss {task.fields[loss]:.3f}, {task.fields[speed]:.1f} images/s,"),
        TimeRemainingColumn(),
    )
    terminal = console.stderr
    with Progress(
        *columns, console=terminal, transient=True, disable=not terminal.is_terminal
    ) as bar:
        # of several processes the first alone tells of its progress
        task = bar.add_task(title, total=None, loss=0.0, speed=0.0, visible=False)

        def make_way(epoch: Epoch) -> None:
            if on_epoch is not None:
                bar.stop()
                on_epoch(epoch)
                bar.start()

        def progress(step: Step) -> None:
            bar.update(task, completed=step.update, total=step.updates, visible=True)
            bar.update(task, loss=step.loss, speed=step.samples_per_sec)

        return fit(*of_fit, on_epoch=make_way, progress=progress, **arguments)
