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

EMA, PROGRESS = "ema.safetensors", "progress.json"


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
    """Write a checkpoint, then remove all but the latest ``keep`` and the one after the best epoch.

    accelerate writes weights (safetensors), optimizer, gradient scaler and random states; every process takes part. Where this
    update was saved before (``again``), only the progress is new: the epoch has been evaluated since.

    Raises:
        CheckpointError: naming the reason, such as a full disk.
    """
    target = folder / CHECKPOINTS / _name(progress.update)
    partial = target.with_name(f".{target.name}")
    with written(target):
        if not again:
            _save_state(accelerator, partial, ema)
        if accelerator.is_main_process:
            write_atomic(
                (target if again else partial) / PROGRESS, json.dumps(progress.to_dict()) + "\n"
            )
            if not again:
                # one that is not whole
                shutil.rmtree(target, ignore_errors=True)
                partial.replace(target)
            best = progress.best.epoch * updates_per_epoch if progress.history else None
            for old in sorted(_found(folder), reverse=True)[keep:]:
                if old != best:
                    shutil.rmtree(folder / CHECKPOINTS / _name(old))
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
        save_weights(ema, partial / EMA)


@contextmanager
def written(target: Path) -> Iterator[None]:
    """Say what could not be written; torch and safetensors have errors of their own for a full disk.

    Raises:
        CheckpointError: whatever went wrong in the block.
    """
    try:
        yield
    except Exception as error:
        shutil.rmtree(target.with_name(f".{target.name}"), ignore_errors=True)
        raise CheckpointError(
            f"cannot write {target} ({first_line(error)}); make room there, then go on with --resume"
        ) from error


def latest(folder: Path) -> Path | None:
    """The last whole checkpoint of a run, or None."""
    found = max(_found(folder), default=None)
    return None if found is None else folder / CHECKPOINTS / _name(found)


def load(accelerator: Accelerator, checkpoint: Path, *, ema: nn.Module | None) -> Progress:
    """Put everything back where :func:`save` took it from.

    Raises:
        ValueError: if the checkpoint is not whole, or not of this model, optimizer or number of processes.
    """
    try:
        progress = Progress.from_dict(read_json(checkpoint / PROGRESS))
        accelerator.load_state(str(checkpoint))
        if ema is not None:
            load_weights(ema, checkpoint / EMA)
    except Exception as error:
        reason = " ".join(str(error).split())[:300] or type(error).__name__
        raise ValueError(
            f"{checkpoint}: cannot be resumed from ({reason}); start it as it was started, or, if the checkpoint is damaged, "
            "remove it to go on from the one before"
        ) from error
    return progress


def _name(update: int) -> str:
    return f"update-{update:08d}"


def _found(folder: Path) -> Iterator[int]:
    for path in (folder / CHECKPOINTS).glob("update-*"):
        if (path / PROGRESS).is_file() and path.name.removeprefix("update-").isdecimal():
            yield int(path.name.removeprefix("update-"))
