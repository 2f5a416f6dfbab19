"""What a run logged, read again: the logs of batvit, of DeiT's main.py (BAT's and EViT's too) and of timm."""

import csv
import json
import math
import reprlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

LOG = "log.jsonl"
# far beyond what a run can log, and small enough to be drawn
LARGEST_EPOCH, LARGEST_VALUE = 1_000_000, 1e100


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
    lr: float | None


@dataclass(frozen=True)
class Curve:
    """A run, epoch by epoch."""

    name: str
    points: tuple[CurvePoint, ...]

    @property
    def best(self) -> CurvePoint | None:
        """The point with the highest top-1, the earliest of equals; None if no point has one."""
        known = [point for point in self.points if point.top1 is not None]
        return max(known, key=lambda point: -1 if point.top1 is None else point.top1, default=None)


class _Dialect(NamedTuple):
    """The first epoch, then the key of each value, in the order of :class:`CurvePoint`."""

    first: int
    train_loss: str
    eval_loss: str
    top1: str
    top5: str
    lr: str


OURS = _Dialect(1, "train_loss", "eval_loss", "top1", "top5", "lr")
DEIT = _Dialect(0, "train_loss", "test_loss", "test_acc1", "test_acc5", "train_lr")
TIMM = _Dialect(0, "train_loss", "eval_loss", "eval_top1", "eval_top5", "lr")
# EViT evaluates every 30 epochs, and its other lines have no test_acc1
KEYS_OF_DEIT = {"train_lr", "test_acc1", "n_parameters"}


def log_file(path: str | Path) -> Path:
    """The file that :func:`read_curve` reads: of a folder its ``log.jsonl``.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if its suffix is unknown.
    """
    path = Path(path)
    file = path / LOG if path.is_dir() else path
    if not file.is_file():
        raise FileNotFoundError(
            f"{file}: no such file; give the folder of a run that holds {LOG}, or a log"
        )
    if file.suffix.lower() not in READERS:
        raise ValueError(
            f"{file}: the suffix of a log is one of {', '.join(READERS)}, got {file.suffix!r}; rename the file"
        )
    return file


def read_curve(path: str | Path) -> Curve:
    """The epochs of a run, in order. Of an epoch that a resumed run logged again, the later line counts.

    A last line that a crash cut short is left out.

    Args:
        path: the folder of a run; or a ``.jsonl``, ``.txt`` or ``.log`` file with a JSON object a line, from batvit or
            DeiT's main.py; or timm's ``summary.csv``. The curve is named after the folder, or the file without its suffix.

    Raises:
        FileNotFoundError, ValueError: naming the file, and the line where one is at fault.
    """
    file = log_file(path)
    points = {point.epoch: point for point in READERS[file.suffix.lower()](file)}
    if not points:
        what = "holds no epoch" if file.stat().st_size else "is empty"
        raise ValueError(f"{file}: {what}; give the log of a run that has finished an epoch")
    name = Path(path).resolve().name if Path(path).is_dir() else file.stem
    return Curve(name, tuple(points[epoch] for epoch in sorted(points)))


def _from_json(file: Path) -> Iterator[CurvePoint]:
    for where, line, whole in _lines(file):
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            if not whole and isinstance(error, ValueError):
                return
            raise ValueError(
                f"{where}: not JSON ({error}); remove the line, or give another file"
            ) from error
        if not isinstance(row, dict):
            raise ValueError(
                f"{where}: expected a JSON object, got {reprlib.repr(row)}; remove the line"
            )
        dialect = DEIT if KEYS_OF_DEIT & row.keys() else OURS
        # between its epochs batvit logs updates, which have an epoch and lr, but none of the others
        if "epoch" in row and row.keys() & set(dialect[1:-1]):
            yield _point(where, row, dialect)


def _from_csv(file: Path) -> Iterator[CurvePoint]:
    names: list[str] = []
    for where, line, whole in _lines(file):
        try:
            cells = [cell.strip() for cell in next(csv.reader([line]))]
        except csv.Error as error:
            raise ValueError(f"{where}: not CSV ({error}); give timm's summary.csv") from error
        if not names:
            names = cells
            if "epoch" not in names or not set(names) & set(TIMM[1:]):
                raise ValueError(
                    f"{where}: the columns must be epoch and any of {', '.join(TIMM[1:])}, got {reprlib.repr(cells)}; "
                    "give timm's summary.csv"
                )
        elif not whole and (len(cells) < len(names) or isinstance(_parsed(cells[-1]), str)):
            return
        elif len(cells) != len(names):
            raise ValueError(
                f"{where}: {len(cells)} values for {len(names)} columns; remove the line"
            )
        # older versions of timm write the header again when a run is resumed
        elif cells != names:
            yield _point(where, dict(zip(names, map(_parsed, cells), strict=True)), TIMM)


READERS = {".jsonl": _from_json, ".txt": _from_json, ".log": _from_json, ".csv": _from_csv}


def _lines(file: Path) -> Iterator[tuple[str, str, bool]]:
    """Where each line stands, the line, and whether its end was written too. Blank lines are passed over."""
    # what is no text becomes what is no JSON and no number, and is refused with its line
    with file.open(encoding="utf-8-sig", errors="replace") as lines:
        for number, line in enumerate(lines, 1):
            if line.strip():
                yield f"{file}, line {number}", line, line.endswith("\n")


def _point(where: str, row: Mapping[str, Any], dialect: _Dialect) -> CurvePoint:
    epoch = _number(where, "epoch", row["epoch"])
    if epoch is None or not epoch.is_integer() or not dialect.first <= epoch <= LARGEST_EPOCH:
        allowed = f"an integer from {dialect.first} to {LARGEST_EPOCH}"
        raise ValueError(
            f"{where}: epoch must be {allowed}, got {reprlib.repr(row['epoch'])}; correct or remove the line"
        )
    values = (_number(where, key, row.get(key)) for key in dialect[1:])
    return CurvePoint(int(epoch) - dialect.first + 1, *values)


def _number(where: str, name: str, value: Any) -> float | None:
    """The value; None if it is missing or not finite."""
    if value is None or (isinstance(value, float) and not math.isfinite(value)):
        return None
    if (
        isinstance(value, int | float)
        and not isinstance(value, bool)
        and abs(value) <= LARGEST_VALUE
    ):
        return float(value)
    raise ValueError(
        f"{where}: {name} must be a number up to {LARGEST_VALUE:g}, got {reprlib.repr(value)}; correct or remove the line"
    )


def _parsed(cell: str) -> float | str | None:
    try:
        return float(cell) if cell else None
    except ValueError:
        return cell
