"""What a run leaves to be read: how it was made, its losses, its epochs."""

import csv
import io
import json
import sys
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from batvit.storage.files import check_folder, read_json, write_atomic
from batvit.storage.provenance import git_commit, versions
from batvit.training.config import TrainConfig
from batvit.training.progress import Epoch, Step

RUN, LOG, SUMMARY = "run.json", "log.jsonl", "summary.csv"
LAST, BEST, CHECKPOINTS = "last.safetensors", "best.safetensors", "checkpoints"
# they change how fast it goes, not where to
FREE = (
    *(
        "data",
        "recipe",
        "processes",
        "grad_accum_steps",
        "grad_checkpointing",
        "compile",
        "workers",
    ),
    *("log_every", "save_every", "keep"),
)


class Record:
    """The files of one run: ``run.json``, ``log.jsonl`` (a line every so many updates and after each epoch), ``summary.csv``.

    Args:
        folder: of the run; made if it is not there.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def begin(self, config: TrainConfig, about: Mapping[str, Any]) -> None:
        """Write the resolved configuration, what is told about the run, versions and commit."""
        self.folder.mkdir(exist_ok=True)
        content = dict(about) | {
            "train": asdict(config),
            "versions": versions(),
            "git_commit": git_commit(),
        }
        write_atomic(
            self.folder / RUN, json.dumps(content | {"command": sys.argv}, indent=2) + "\n"
        )

    def check_same(
        self, config: TrainConfig, about: Mapping[str, Any], reduction: Mapping[str, Any]
    ) -> None:
        """Refuse to go on with anything that would lead elsewhere.

        Raises:
            ValueError: naming the first difference.
        """
        earlier = read_json(self.folder / RUN)
        known: dict[str, Any] = {"train": None} | (earlier if isinstance(earlier, dict) else {})
        # JSON has lists for tuples; of what was not told nothing can be said
        wanted = json.loads(
            json.dumps({name: value for name, value in about.items() if name in known})
        )
        wanted |= {"train": asdict(config)}
        # a field that an earlier version did not know was as it is by default
        for name, default in (("train", asdict(TrainConfig())), ("config", reduction)):
            if isinstance(known.get(name), dict) and wanted.get(name):
                known[name] = {
                    field: value for field, value in default.items() if field in wanted[name]
                } | known[name]
        told, there = _flat(wanted), _flat({name: known[name] for name in wanted})
        for name in told | there:
            if told.get(name) != there.get(name) and name.removeprefix("train.") not in FREE:
                raise ValueError(
                    f"{self.folder}: this run was started with {name} = {there.get(name)}, and cannot go on with "
                    f"{told.get(name)}; "
                    "give what it was started with, or name another folder"
                )

    def step(self, step: Step, epoch: int) -> None:
        """Add a line about an update."""
        fields = {"update": step.update, "epoch": epoch, "loss": step.loss, "lr": step.lr}
        self._add(fields | {"samples_per_sec": step.samples_per_sec})

    def epoch(self, history: list[Epoch], update: int) -> None:
        """Add a line about an epoch, and write the summary anew."""
        self._add(asdict(history[-1]) | {"update": update})
        text = io.StringIO()
        table = csv.writer(text, lineterminator="\n")
        # as timm's train.py, which counts epochs from 0
        table.writerow(("epoch", "train_loss", "eval_loss", "eval_top1", "eval_top5", "lr"))
        table.writerows(
            (e.epoch - 1, e.train_loss, e.eval_loss, e.top1, e.top5, e.lr) for e in history
        )
        write_atomic(self.folder / SUMMARY, text.getvalue())

    def cut(self, update: int, epochs: int) -> None:
        """Take back what was told of later updates and epochs, which will come again, and what a killed process began."""
        for name in (RUN, LOG, SUMMARY, LAST, BEST):
            # of weights, and of the reduction beside them
            for begun in self.folder.glob(f".{Path(name).stem}.*"):
                begun.unlink()
        path = self.folder / LOG
        lines = path.read_text().splitlines() if path.is_file() else []
        kept = [line for line in lines if _is_of(line, update, epochs)]
        write_atomic(path, "".join(f"{line}\n" for line in kept))

    def _add(self, fields: Mapping[str, Any]) -> None:
        with (self.folder / LOG).open("a") as file:
            file.write(json.dumps(fields) + "\n")


def check_output(output: str | Path, *, resume: bool = False) -> Path:
    """Refuse a folder for a run, before any work is done for it.

    Raises:
        OSError: if it holds a run already and is not to be resumed, cannot be written, or its parent does not exist.
    """
    folder = check_folder(output)
    held = next(
        (name for name in (RUN, LOG, LAST, BEST, CHECKPOINTS) if (folder / name).exists()), None
    )
    if held is not None and not resume:
        raise FileExistsError(
            f"{folder}: already holds a run ({held}); go on with it by --resume, or name another folder"
        )
    return folder


def _flat(fields: Mapping[str, Any]) -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in fields.items():
        if isinstance(value, dict):
            flat |= {f"{name}.{key}": inner for key, inner in value.items()}
        elif isinstance(value, list):
            flat |= {f"{name}[{i}]": inner for i, inner in enumerate(value)}
        else:
            flat[name] = value
    return flat


def _is_of(line: str, update: int, epochs: int) -> bool:
    """Whether a line of the log is about these updates, or about one of these epochs; a line cut short is about none."""
    try:
        told = json.loads(line)
        return bool(told["update"] <= update and ("top1" not in told or told["epoch"] <= epochs))
    except (ValueError, KeyError, TypeError):
        return False
