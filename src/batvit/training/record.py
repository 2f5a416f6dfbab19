"""What a run leaves to be read: how it was made, its losses, its epochs."""

import csv
import io
import json
import sys
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from batvit.storage.files import check_folder, no_room_named, read_json, write_atomic
from batvit.storage.provenance import git_commit, versions
from batvit.storage.run_folder import check_new, check_same
from batvit.training.config import TrainConfig
from batvit.training.logs import LOG
from batvit.training.progress import Epoch, Step

RUN = "run.json"
SUMMARY = "summary.csv"
LAST = "last.safetensors"
BEST = "best.safetensors"
CHECKPOINTS = "checkpoints"
SUMMARY_COLUMNS = ("epoch", "train_loss", "eval_loss", "eval_top1", "eval_top5", "lr")

# a run may go on with others: they change its speed, or what it keeps, not its losses
MAY_DIFFER = (
    "data",
    "recipe",
    "processes",
    "train.grad_accum_steps",
    "train.grad_checkpointing",
    "train.compile",
    "train.workers",
    "train.log_every",
    "train.save_every",
    "train.keep",
)


class Record:
    """The files of one run that are there to be read.

    ``run.json`` says how it was made; ``log.jsonl`` has a line every so many updates and after each
    epoch; ``summary.csv`` has a row an epoch, as timm writes it.

    Args:
        folder: of the run; made if it is not there.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @property
    def begun(self) -> bool:
        """Return whether the folder holds a run already."""
        return (self.folder / RUN).exists()

    def begin(self, config: TrainConfig, metadata: Mapping[str, Any]) -> None:
        """Write the whole configuration, the metadata of the run, versions and commit."""
        self.folder.mkdir(exist_ok=True)
        content = {
            **metadata,
            "train": asdict(config),
            "versions": versions(),
            "git_commit": git_commit(),
            "command": sys.argv,
        }
        write_atomic(self.folder / RUN, json.dumps(content, indent=2) + "\n")

    def check_same(
        self, config: TrainConfig, metadata: Mapping[str, Any], reduction: Mapping[str, Any]
    ) -> None:
        """Refuse to go on with anything that would lead elsewhere.

        Args:
            config: with which the run is to go on.
            metadata: of the run; what the run did not record is not compared.
            reduction: every value of a reduction as it is by default.

        Raises:
            ValueError: naming the first difference.
        """
        earlier = read_json(self.folder / RUN)
        recorded = earlier if isinstance(earlier, dict) else {}
        now = {name: value for name, value in metadata.items() if name in recorded}
        now["train"] = asdict(config)
        # a field that an earlier version did not know was as it is by default
        defaults = {"train": asdict(TrainConfig()), "config": reduction}
        check_same(self.folder, recorded, now, ignore=MAY_DIFFER, defaults=defaults)

    def add_step(self, step: Step, epoch: int) -> None:
        """Add a line about an update to the log."""
        self._add(
            {
                "update": step.update,
                "epoch": epoch,
                "loss": step.loss,
                "lr": step.lr,
                "samples_per_sec": step.samples_per_sec,
            }
        )

    def add_epoch(self, history: list[Epoch], update: int) -> None:
        """Add a line about the last epoch to the log, and write the summary anew.

        Args:
            history: all epochs by now.
            update: the last one of the last epoch.
        """
        self._add({**asdict(history[-1]), "update": update})
        text = io.StringIO()
        table = csv.writer(text, lineterminator="\n")
        table.writerow(SUMMARY_COLUMNS)
        for epoch in history:
            # timm counts epochs from 0
            number = epoch.epoch - 1
            losses = (epoch.train_loss, epoch.eval_loss)
            table.writerow((number, *losses, epoch.top1, epoch.top5, epoch.lr))
        write_atomic(self.folder / SUMMARY, text.getvalue())

    def truncate(self, update: int, epochs: int) -> None:
        """Take back what was logged of later updates and epochs, which will come again."""
        path = self.folder / LOG
        lines = path.read_text().splitlines() if path.is_file() else []
        kept = [f"{line}\n" for line in lines if _is_of(line, update, epochs)]
        write_atomic(path, "".join(kept))

    def _add(self, fields: Mapping[str, Any]) -> None:
        path = self.folder / LOG
        with no_room_named(path), path.open("a") as file:
            file.write(json.dumps(fields) + "\n")


def check_output(output: str | Path, *, resume: bool = False) -> Path:
    """Refuse a folder for a run, before any work is done for it.

    Raises:
        OSError: if it holds a run already and is not to be resumed, cannot be written, or its
            parent does not exist.
    """
    folder = check_folder(output)
    check_new(folder, (RUN, LOG, LAST, BEST, CHECKPOINTS), what="a run", resume=resume)
    return folder


def _is_of(line: str, update: int, epochs: int) -> bool:
    """Return whether a line of the log is about one of these updates, or about one of these epochs.

    A line that was cut short is about none.
    """
    try:
        fields = json.loads(line)
        if fields["update"] > update:
            return False
        is_epoch = "top1" in fields
        return not is_epoch or bool(fields["epoch"] <= epochs)
    except (ValueError, KeyError, TypeError):
        return False
