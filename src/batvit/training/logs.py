"""What a run logged, read again: logs of batvit, of DeiT's main.py (BAT's, EViT's) and of timm."""

import csv
import json
import math
import reprlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from batvit.storage.reading import check_file

LOG = "log.jsonl"
"""the log in the folder of a run"""

# far beyond what a run can log, and small enough to be drawn
LARGEST_LOG = 2**28
LARGEST_EPOCH = 1_000_000
LARGEST_VALUE = 1e100


@dataclass(frozen=True)
class CurvePoint:
    """One epoch. What was not logged, or is no finite number, is None."""

    epoch: int
    """counted from 1"""
    train_loss: float | None
    eval_loss: float | None
    top1: float | None
    """on the validation set, in percent"""
    top5: float | None
    """on the validation set, in percent"""
    lr: float | None


@dataclass(frozen=True)
class TrainingCurve:
    """A run, epoch by epoch."""

    name: str
    points: tuple[CurvePoint, ...]

    @property
    def best(self) -> CurvePoint | None:
        """The point with the highest top-1, the earliest of equals; None if no point has one."""
        best: CurvePoint | None = None
        highest = -math.inf
        for point in self.points:
            if point.top1 is not None and point.top1 > highest:
                best = point
                highest = point.top1
        return best


class _Dialect(NamedTuple):
    """How a program writes its log: its first epoch, and the key of each value."""

    first_epoch: int
    train_loss: str
    eval_loss: str
    top1: str
    top5: str
    lr: str

    @property
    def results(self) -> set[str]:
        """The keys of what an epoch comes to; without the learning rate, which updates have too."""
        return {self.train_loss, self.eval_loss, self.top1, self.top5}


OURS = _Dialect(1, "train_loss", "eval_loss", "top1", "top5", "lr")
DEIT = _Dialect(0, "train_loss", "test_loss", "test_acc1", "test_acc5", "train_lr")
TIMM = _Dialect(0, "train_loss", "eval_loss", "eval_top1", "eval_top5", "lr")
# EViT evaluates every 30 epochs, and its other lines have no test_acc1
KEYS_OF_DEIT = {"train_lr", "test_acc1", "n_parameters"}


class _Line(NamedTuple):
    """A line of a log that is not blank."""

    where: str
    """file and number, for messages"""
    text: str
    is_whole: bool
    """whether its end was written too"""


def log_file(path: str | Path) -> Path:
    """Return the file that :func:`read_curve` reads: of a folder its ``log.jsonl``.

    Raises:
        FileNotFoundError: if there is no such file.
        OSError: if it is huge.
        ValueError: if its suffix is unknown.
    """
    path = Path(path)
    file = path / LOG if path.is_dir() else path
    if not file.is_file():
        raise FileNotFoundError(
            f"{file}: no such file; give the folder of a run that holds {LOG}, or a log"
        )
    check_file(file, largest=LARGEST_LOG)
    if file.suffix.lower() not in READERS:
        raise ValueError(
            f"{file}: the suffix of a log is one of {', '.join(READERS)}, got {file.suffix!r}; "
            "rename the file"
        )
    return file


def read_curve(path: str | Path) -> TrainingCurve:
    """Read the epochs of a run, in order.

    Of an epoch that a resumed run logged again, the later line counts. A last line that a crash cut
    short is left out.

    Args:
        path: the folder of a run; or a ``.jsonl``, ``.txt`` or ``.log`` file with a JSON object a
            line, from batvit or DeiT's main.py; or timm's ``summary.csv``. The curve is named after
            the folder, or the file without its suffix.

    Raises:
        FileNotFoundError, ValueError: naming the file, and the line where one is at fault.
    """
    file = log_file(path)
    read = READERS[file.suffix.lower()]
    points = {}
    for point in read(file):
        points[point.epoch] = point
    if not points:
        what = "holds no epoch" if file.stat().st_size else "is empty"
        raise ValueError(f"{file}: {what}; give the log of a run that has finished an epoch")
    name = Path(path).resolve().name if Path(path).is_dir() else file.stem
    return TrainingCurve(name, tuple(points[epoch] for epoch in sorted(points)))


def _from_json(file: Path) -> Iterator[CurvePoint]:
    """Give the epochs in a file with a JSON object a line."""
    for where, text, is_whole in _lines(file):
        try:
            row = json.loads(text)
        except (ValueError, RecursionError) as error:
            # only a line that was cut short ends the file without an error
            if not is_whole and isinstance(error, ValueError):
                return
            raise ValueError(
                f"{where}: not JSON ({error}); remove the line, or give another file"
            ) from error
        if not isinstance(row, dict):
            raise ValueError(
                f"{where}: expected a JSON object, got {reprlib.repr(row)}; remove the line"
            )
        dialect = DEIT if KEYS_OF_DEIT & row.keys() else OURS
        # between its epochs batvit logs updates, which have an epoch and lr, but no result
        if "epoch" in row and dialect.results & row.keys():
            yield _point(where, row, dialect)


def _from_csv(file: Path) -> Iterator[CurvePoint]:
    """Give the epochs in a table as timm writes it."""
    names: list[str] = []
    for where, text, is_whole in _lines(file):
        cells = _cells(where, text)
        if not names:
            _check_header(where, cells)
            names = cells
            continue
        is_short = len(cells) < len(names) or isinstance(_parsed(cells[-1]), str)
        if is_short and not is_whole:
            return
        if len(cells) != len(names):
            raise ValueError(
                f"{where}: {len(cells)} values for {len(names)} columns; remove the line"
            )
        # older versions of timm write the header again when a run is resumed
        if cells != names:
            values = [_parsed(cell) for cell in cells]
            yield _point(where, dict(zip(names, values, strict=True)), TIMM)


READERS = {".jsonl": _from_json, ".txt": _from_json, ".log": _from_json, ".csv": _from_csv}
"""the reader of each suffix"""


def _lines(file: Path) -> Iterator[_Line]:
    # what is no text becomes what is no JSON and no number, and is refused with its line
    with file.open(encoding="utf-8-sig", errors="replace") as lines:
        for number, text in enumerate(lines, 1):
            if text.strip():
                yield _Line(f"{file}, line {number}", text, text.endswith("\n"))


def _cells(where: str, text: str) -> list[str]:
    try:
        row = next(csv.reader([text]))
    except csv.Error as error:
        raise ValueError(f"{where}: not CSV ({error}); give timm's summary.csv") from error
    return [cell.strip() for cell in row]


def _check_header(where: str, names: list[str]) -> None:
    columns = TIMM[1:]
    if "epoch" not in names or not set(names) & set(columns):
        raise ValueError(
            f"{where}: the columns must be epoch and any of {', '.join(columns)}, "
            f"got {reprlib.repr(names)}; give timm's summary.csv"
        )


def _point(where: str, row: Mapping[str, Any], dialect: _Dialect) -> CurvePoint:
    """Make a point of what a line holds."""
    epoch = _number(where, "epoch", row["epoch"])
    first = dialect.first_epoch
    if epoch is None or not epoch.is_integer() or not first <= epoch <= LARGEST_EPOCH:
        raise ValueError(
            f"{where}: epoch must be an integer from {first} to {LARGEST_EPOCH}, "
            f"got {reprlib.repr(row['epoch'])}; correct or remove the line"
        )

    def value(key: str) -> float | None:
        return _number(where, key, row.get(key))

    return CurvePoint(
        epoch=int(epoch) - first + 1,
        train_loss=value(dialect.train_loss),
        eval_loss=value(dialect.eval_loss),
        top1=value(dialect.top1),
        top5=value(dialect.top5),
        lr=value(dialect.lr),
    )


def _number(where: str, name: str, value: Any) -> float | None:
    """Return the value; None if it is missing or not finite."""
    if value is None or (isinstance(value, float) and not math.isfinite(value)):
        return None
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if is_number and abs(value) <= LARGEST_VALUE:
        return float(value)
    raise ValueError(
        f"{where}: {name} must be a number up to {LARGEST_VALUE:g}, got {reprlib.repr(value)}; "
        "correct or remove the line"
    )


def _parsed(cell: str) -> float | str | None:
    """Return the number in a cell, None if it is empty, and what holds no number as it is."""
    try:
        return float(cell) if cell else None
    except ValueError:
        return cell
