"""Everything a run needs to go on, in one folder a checkpoint, whole or not at all."""

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from accelerate import Accelerator
from torch import nn

from batvit.storage.files import first_line, read_json, write_atomic
from batvit.storage.weights import load_weights, save_weights
from batvit.training.progress import Progress
from batvit.training.record import CHECKPOINTS

EMA_FILE = "ema.safetensors"
PROGRESS_FILE = "progress.json"


class CheckpointError(OSError):
    """A checkpoint could not be written; the ones before it stay as they are."""


def save(
    accelerator: Accelerator,
    folder: Path,
    progress: Progress,
    *,
    ema: nn.Module | None,
    keep: int,
    updates_per_epoch: int,
    again: bool = False,
) -> None:
    """Write a checkpoint, then remove older ones.

    accelerate writes weights (safetensors), optimizer, gradient scaler and random states; every
    process takes part. The latest stay, and the one after the best epoch.

    Args:
        accelerator: of the run.
        folder: of the run.
        progress: where the run stands.
        ema: the average of the weights, if there is one.
        keep: how many of the latest checkpoints stay.
        updates_per_epoch: by which the checkpoint after the best epoch is found.
        again: this update was saved before, and only the progress is new: the epoch has been
            evaluated since.

    Raises:
        CheckpointError: naming the reason, such as a full disk.
    """
    target = folder / CHECKPOINTS / _name(progress.update)
    content = json.dumps(progress.to_dict()) + "\n"
    with written(target):
        if again:
            if accelerator.is_main_process:
                write_atomic(target / PROGRESS_FILE, content)
        else:
            partial = _partial(target)
            _save_state(accelerator, partial, ema)
            if accelerator.is_main_process:
                write_atomic(partial / PROGRESS_FILE, content)
                # an earlier one of that name is not whole
                shutil.rmtree(target, ignore_errors=True)
                partial.replace(target)
        if accelerator.is_main_process:
            best = progress.best.epoch * updates_per_epoch if progress.history else None
            _remove_old(folder, keep, best)
    accelerator.wait_for_everyone()


def _save_state(accelerator: Accelerator, partial: Path, ema: nn.Module | None) -> None:
    if accelerator.is_main_process:
        # what a killed process began
        for begun in partial.parent.glob(".update-*"):
            shutil.rmtree(begun)
        partial.mkdir(parents=True)
    accelerator.wait_for_everyone()
    accelerator.save_state(str(partial))
    accelerator.wait_for_everyone()
    if accelerator.is_main_process and ema is not None:
        save_weights(ema, partial / EMA_FILE)


def _remove_old(folder: Path, keep: int, best: int | None) -> None:
    """Remove all checkpoints but the latest ones and that after the best update."""
    newest_first = sorted(_updates(folder), reverse=True)
    for update in newest_first[keep:]:
        if update != best:
            shutil.rmtree(folder / CHECKPOINTS / _name(update))


@contextmanager
def written(target: Path) -> Iterator[None]:
    """Say what could not be written: torch and safetensors have their own errors for a full disk.

    Raises:
        CheckpointError: whatever went wrong in the block.
    """
    try:
        yield
    except Exception as error:
        shutil.rmtree(_partial(target), ignore_errors=True)
        raise CheckpointError(
            f"cannot write {target} ({first_line(error)}); "
            "make room there, then go on with resume=True"
        ) from error


def latest(folder: Path) -> Path | None:
    """Return the last whole checkpoint of a run, or None."""
    update = max(_updates(folder), default=None)
    return None if update is None else folder / CHECKPOINTS / _name(update)


def load(accelerator: Accelerator, checkpoint: Path, *, ema: nn.Module | None) -> Progress:
    """Put everything back where :func:`save` took it from.

    Raises:
        ValueError: if the checkpoint is not whole, or not of this model, optimizer or number of
            processes.
    """
    try:
        progress = Progress.from_dict(read_json(checkpoint / PROGRESS_FILE))
        accelerator.load_state(str(checkpoint))
        if ema is not None:
            load_weights(ema, checkpoint / EMA_FILE)
    except Exception as error:
        raise ValueError(
            f"{checkpoint}: cannot be resumed from ({first_line(error)}); start it as it was "
            "started, or, if the checkpoint is damaged, remove it to go on from the one before"
        ) from error
    return progress


def _name(update: int) -> str:
    return f"update-{update:08d}"


def _partial(target: Path) -> Path:
    """Return where a checkpoint lies until it is whole."""
    return target.with_name(f".{target.name}")


def _updates(folder: Path) -> Iterator[int]:
    """Give the update of each whole checkpoint, in no order."""
    for path in (folder / CHECKPOINTS).glob("update-*"):
        number = path.name.removeprefix("update-")
        if number.isdecimal() and (path / PROGRESS_FILE).is_file():
            yield int(number)
