"""What a comparison found so far: a row for each plan at each target, kept in a folder after every step."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from itertools import product
from pathlib import Path
from typing import Any

from batvit.files import check_same, read_json, write_atomic
from batvit.outcomes import DENSE

PROGRESS = "progress.json"


@dataclass
class Row:
    """One plan at one target, or the dense model; what pictures tell is None until they were seen."""

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
    """median time of dense over its own, in turns"""
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


@dataclass
class Study:
    """What is compared, and how far it got: kept in a folder after every step, so that it can be taken up again."""

    folder: Path
    about: dict[str, Any]
    """what must be the same for results to belong together"""
    rows: list[Row] = field(default_factory=list)
    """the dense model's first"""
    failed: list[dict[str, Any]] = field(default_factory=list)

    @classmethod
    def open(cls, folder: Path, about: Mapping[str, Any], *, resume: bool) -> "Study":
        """Begin in a folder, or go on there.

        Raises:
            FileExistsError: if the folder holds a study that is not to be resumed.
            ValueError: if it is to be resumed with anything else than it was begun with.
        """
        # JSON has lists for tuples
        path, wanted = folder / PROGRESS, json.loads(json.dumps(dict(about)))
        if not path.exists():
            folder.mkdir(exist_ok=True)
            return cls(folder, wanted)
        if not resume:
            raise FileExistsError(f"{folder}: already holds a comparison; go on with it by --resume, or name another folder")
        kept = read_json(path)
        try:
            study = cls(folder, kept["about"], [Row(**row) for row in kept["rows"]], list(kept["failed"]))
        except (KeyError, TypeError) as error:
            raise ValueError(f"{path}: not what a comparison leaves ({error}); name another folder") from error
        check_same(folder, study.about, wanted)
        return study

    def save(self) -> None:
        """Write what is known so far, whole or not at all."""
        content = {"about": self.about, "rows": [asdict(row) for row in self.rows], "failed": self.failed}
        write_atomic(self.folder / PROGRESS, json.dumps(content, indent=2) + "\n")

    def missing(self, plans: Sequence[str], targets: Sequence[float]) -> Iterator[tuple[str, float, str]]:
        """What is still to be fitted, in order."""
        done = {row.key for row in self.rows} | {(one["plan"], one["target"], one["at"]) for one in self.failed}
        yield from (key for key in product(plans, targets, ("macs", "time")) if key not in done)

    def fail(self, key: tuple[str, float | None, str | None], error: Exception) -> None:
        """Remember that a plan cannot do what it should; the others go on."""
        reason = " ".join(str(error).split()) or type(error).__name__
        self.failed.append({"plan": key[0], "target": key[1], "at": key[2], "reason": reason})
        self.rows = [row for row in self.rows if row.key != key]


def as_result(study: Study, about: Mapping[str, Any]) -> dict[str, Any]:
    """Plain values: what the comparison is about, the dense model's row, and those of the plans."""
    dense = next(asdict(row) for row in study.rows if row.plan == DENSE)
    rows = [asdict(row) for row in study.rows if row.plan != DENSE]
    return {**study.about, **about, DENSE: dense, "rows": rows, "failed": study.failed}


def flat(row: Mapping[str, Any]) -> dict[str, Any]:
    """A row for a table: its counts and configuration as text."""
    return {f.name: json.dumps(row[f.name]) if f.name in ("config", "blocks", "tokens") else row[f.name] for f in fields(Row)}
