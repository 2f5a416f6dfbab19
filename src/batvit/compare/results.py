"""What a comparison found so far: a row for each plan at each target, kept in a folder after every step."""

import json
import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from itertools import product
from pathlib import Path
from reprlib import repr as shortened
from typing import Any

from batvit.compare.scores import DENSE
from batvit.config.config import BATConfig
from batvit.storage.files import read_json, write_atomic
from batvit.storage.run_folder import check_same

PROGRESS, OUTCOMES = "progress.json", "outcomes.safetensors"
# what a target is a share of
COSTS = {"macs": "MACs", "time": "measured time"}
ALWAYS = ("plan", "target", "at", "gmacs", "mac_share")


@dataclass
class Row:
    """One plan at one target, or the dense model; what the clock and the pictures tell is None until it was found."""

    plan: str
    target: float | None = None
    """share of the dense model's cost"""
    at: str | None = None
    """of which cost: macs or time"""
    config: dict[str, Any] | None = None
    blocks: list[int] = field(default_factory=list)
    tokens: list[int] = field(default_factory=list)
    """image tokens after each of these blocks"""
    gmacs: float | None = None
    mac_share: float | None = None
    step_time: float | None = None
    """median, milliseconds a batch"""
    step_time_iqr: float | None = None
    samples_per_sec: float | None = None
    speedup: float | None = None
    """time of dense over its own, in turns: median over rounds"""
    off_target: bool = False
    """at equal time: whether it takes a share of the time that is not near the target"""
    realised_share: float | None = None
    peak_memory_mb: float | None = None
    latency_ms: float | None = None
    """median, milliseconds for one picture alone"""
    latency_speedup: float | None = None
    top1: float | None = None
    top5: float | None = None
    difference: float | None = None
    """of top-1 to the dense model's, in points, with the limits of its 95 % interval"""
    difference_low: float | None = None
    difference_high: float | None = None
    agreement: float | None = None
    """share of pictures, in percent, with the dense model's class"""
    kl: float | None = None
    """mean Kullback-Leibler divergence of the dense model's distribution to its own, in nats"""

    @property
    def key(self) -> tuple[str, float | None, str | None]:
        """What tells rows apart."""
        return self.plan, self.target, self.at

    @property
    def group(self) -> tuple[float | None, str | None]:
        """The target, and of which cost: rows of one group are timed together, and ranked."""
        return self.target, self.at

    @property
    def timed(self) -> bool:
        """Whether it was timed."""
        return None not in (self.step_time, self.speedup, self.latency_ms)


@dataclass
class Study:
    """What is compared, and how far it got: kept in a folder after every step, so that it can be taken up again."""

    folder: Path
    about: dict[str, Any]
    """what must be the same for results to belong together"""
    rows: list[Row] = field(default_factory=list)
    """of the plans"""
    beside: list[Row] = field(default_factory=list)
    """the dense model, as it was timed beside the plans of each group"""
    failed: list[dict[str, Any]] = field(default_factory=list)
    """by now; when a study is taken up, what failed is tried again"""

    @classmethod
    def open(cls, folder: Path, about: Mapping[str, Any], *, resume: bool) -> "Study":
        """Begin in a folder, or go on there.

        Raises:
            FileExistsError: if the folder holds a study that is not to be resumed.
            ValueError: if it is to be resumed with anything else than it was begun with, or its file is damaged.
        """
        # JSON has lists for tuples
        path, wanted = folder / PROGRESS, json.loads(json.dumps(dict(about)))
        if not path.exists():
            folder.mkdir(exist_ok=True)
            # they are of a study that is gone
            (folder / OUTCOMES).unlink(missing_ok=True)
            return cls(folder, wanted)
        if not resume:
            raise FileExistsError(
                f"{folder}: already holds a comparison; go on with it by --resume, or name another folder"
            )
        try:
            kept = read_json(path)
            study = cls(
                folder,
                wanted,
                _rows(kept, "rows"),
                [row for row in _rows(kept, "beside") if row.timed],
            )
        except (TypeError, ValueError) as error:
            raise ValueError(
                f"{path}: not what a comparison leaves ({error}); remove it to begin anew, or name another folder"
            ) from error
        check_same(folder, kept.get("about"), wanted)
        return study

    @property
    def dense(self) -> Row:
        """The dense model's row: a machine is now faster, now slower, and its middle time counts."""
        middle = sorted(self.beside, key=lambda row: row.step_time or 0)[len(self.beside) // 2]
        latency = statistics.median(row.latency_ms or 0 for row in self.beside)
        return replace(middle, target=None, at=None, latency_ms=latency)

    def save(self) -> None:
        """Write what is known so far, whole or not at all."""
        content = {
            "about": self.about,
            **{name: [asdict(row) for row in getattr(self, name)] for name in ("rows", "beside")},
        }
        write_atomic(self.folder / PROGRESS, json.dumps(content, indent=2, allow_nan=False) + "\n")

    def missing(
        self, plans: Sequence[str], targets: Sequence[float]
    ) -> Iterator[tuple[str, float, str]]:
        """What is still to be fitted, in order."""
        done = {row.key for row in self.rows}
        yield from (key for key in product(plans, targets, COSTS) if key not in done)

    def untimed(self) -> list[tuple[float | None, str | None]]:
        """The groups that are still to be timed, whole: times of one run alone can be compared."""
        timed = {row.group for row in self.beside if row.timed}
        return list(
            dict.fromkeys(row.group for row in self.rows if not row.timed or row.group not in timed)
        )

    def fail(self, key: tuple[str, float | None, str | None], error: Exception) -> None:
        """Remember that a plan cannot do what it should; the others go on."""
        reason = " ".join(str(error).split())
        if not isinstance(error, ValueError | RuntimeError) or not reason:
            # what it says makes no sense without its name, as of a KeyError
            reason = f"{type(error).__name__}: {reason}".removesuffix(": ")
        self.failed.append({"plan": key[0], "target": key[1], "at": key[2], "reason": reason})
        self.rows = [row for row in self.rows if row.key != key]

    def check_any(self) -> None:
        """Refuse to go on with no plan.

        Raises:
            ValueError: with the reason that the first one failed for.
        """
        if not self.rows:
            raise ValueError(f"no plan meets a target: {self.failed[0]['reason']}")


def as_result(study: Study, about: Mapping[str, Any]) -> dict[str, Any]:
    """Plain values: what the comparison is about, the dense model's row, and those of the plans."""
    rows = [asdict(row) for row in study.rows]
    return {
        **study.about,
        **about,
        DENSE: asdict(study.dense),
        "rows": rows,
        "failed": study.failed,
    }


def flat(row: Mapping[str, Any]) -> dict[str, Any]:
    """A row for a table: its counts and configuration as text."""
    return {
        f.name: json.dumps(row[f.name]) if f.name in ("config", "blocks", "tokens") else row[f.name]
        for f in fields(Row)
    }


def _rows(kept: Any, name: str) -> list[Row]:
    """Rows as they were saved, each value checked: anybody may have written the file."""
    rows = kept.get(name) if isinstance(kept, dict) else None
    if not isinstance(rows, list):
        raise ValueError(f"it has no list of {name}")
    for row in rows:
        if not isinstance(row, dict) or row.keys() - {f.name for f in fields(Row)}:
            raise ValueError(f"in {name}: {shortened(row)}")
        for wrong in (one for one in (*ALWAYS, *row) if not _fits(one, row.get(one))):
            raise ValueError(f"in {name}: {wrong} = {shortened(row.get(wrong))}")
        if row.get("config") is not None:
            BATConfig.from_dict(row["config"])
    return [Row(**row) for row in rows]


def _fits(name: str, value: Any) -> bool:
    """Whether a field can have a value; numbers are finite, and fit into a float."""
    match name:
        case "plan":
            return isinstance(value, str)
        case "at":
            return value in tuple(COSTS)
        case "config":
            return value is None or isinstance(value, dict)
        case "blocks" | "tokens":
            return isinstance(value, list) and all(type(number) is int for number in value)
        case "off_target":
            return isinstance(value, bool)
    number = isinstance(value, int | float) and -1e300 < value < 1e300
    return (number or (value is None and name not in ALWAYS)) and (
        name != "target" or 0 < value < 1
    )
