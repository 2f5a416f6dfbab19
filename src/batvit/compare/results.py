"""What a comparison knows so far: a row for each plan at each target, kept in a folder."""

import json
import statistics
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import product
from pathlib import Path
from typing import Any

from batvit.compare.failures import reason
from batvit.compare.rows import COSTS, Key, Row, RowGroup
from batvit.compare.scores import SCORES_FILE
from batvit.storage.files import read_json, write_atomic
from batvit.storage.run_folder import check_new, check_same

ROWS_FILE = "progress.json"


@dataclass(frozen=True)
class Failure:
    """A plan that cannot do what it should, and why."""

    key: Key
    reason: str

    def __str__(self) -> str:
        return f"{self.key}: {self.reason}"

    def to_dict(self) -> dict[str, Any]:
        """Return plain values."""
        return {"plan": self.key.plan, **self.key.group._asdict(), "reason": self.reason}


@dataclass
class Results:
    """The rows of a comparison, kept in a folder after every step, so that it can be resumed."""

    folder: Path
    metadata: dict[str, Any]
    """what must be the same for rows to belong together"""
    rows: list[Row] = field(default_factory=list)
    """of the plans"""
    dense_rows: list[Row] = field(default_factory=list)
    """the dense model, as it was timed with the plans of each group"""
    failures: list[Failure] = field(default_factory=list)
    """of this run: when a comparison is resumed, what failed is tried again"""

    @classmethod
    def open(cls, folder: Path, metadata: Mapping[str, Any], *, resume: bool) -> "Results":
        """Begin in a folder, or go on there.

        Raises:
            FileExistsError: if the folder holds a comparison that is not to be resumed.
            ValueError: if it is to be resumed with anything else than it was begun with, or its
                file is damaged.
        """
        path = folder / ROWS_FILE
        # JSON has lists for tuples
        plain: dict[str, Any] = json.loads(json.dumps(dict(metadata)))
        check_new(folder, (ROWS_FILE,), what="a comparison", resume=resume)
        if not path.exists():
            folder.mkdir(exist_ok=True)
            # scores without rows are of a comparison that is gone
            (folder / SCORES_FILE).unlink(missing_ok=True)
            return cls(folder, plain)
        try:
            saved = read_json(path)
            rows = _rows(saved, "rows")
            dense_rows = _rows(saved, "dense_rows")
        except (TypeError, ValueError) as error:
            raise ValueError(
                f"{path}: not what a comparison leaves ({error}); remove it to begin anew, or name "
                "another folder"
            ) from error
        check_same(folder, saved.get("metadata"), plain)
        return cls(folder, plain, rows, [row for row in dense_rows if row.timing is not None])

    @property
    def dense(self) -> Row:
        """The dense model's row: of its times in several groups the middle one counts."""
        timed = []
        for row in self.dense_rows:
            if row.timing is not None:
                timed.append((row.timing.step_time, row, row.timing))
        timed.sort(key=lambda entry: entry[0])
        latency = statistics.median(timing.latency_ms for *_, timing in timed)
        _, row, timing = timed[len(timed) // 2]
        return replace(row, group=None, timing=replace(timing, latency_ms=latency))

    def save(self) -> None:
        """Write what is known so far, whole or not at all."""
        content = {
            "metadata": self.metadata,
            "rows": [row.to_dict() for row in self.rows],
            "dense_rows": [row.to_dict() for row in self.dense_rows],
        }
        write_atomic(self.folder / ROWS_FILE, json.dumps(content, indent=2, allow_nan=False) + "\n")

    def missing(self, plans: Sequence[str], targets: Sequence[float]) -> Iterator[Key]:
        """Yield what is still to be fitted, in order."""
        done = {row.key for row in self.rows}
        for plan, target, at in product(plans, targets, COSTS):
            key = Key(plan, RowGroup(target, at))
            if key not in done:
                yield key

    def untimed(self) -> list[RowGroup]:
        """Return the groups that are still to be timed, whole: only times of one run compare."""
        timed = {row.group for row in self.dense_rows if row.timing is not None}
        groups = []
        for row in self.rows:
            group = row.key.group
            if (row.timing is None or group not in timed) and group not in groups:
                groups.append(group)
        return groups

    def update(self, rows: Iterable[Row]) -> None:
        """Put rows in the place of those with the same keys."""
        by_key = {row.key: row for row in rows}
        self.rows = [by_key.get(row.key, row) for row in self.rows]

    def fail(self, key: Key, error: Exception) -> None:
        """Leave a plan out, and remember why; the others go on."""
        self.failures.append(Failure(key, reason(error)))
        self.rows = [row for row in self.rows if row.key != key]

    def check_any(self) -> None:
        """Refuse to go on with no plan.

        Raises:
            ValueError: with the reason that the first one failed for.
        """
        if not self.rows:
            raise ValueError(f"no plan meets a target: {self.failures[0].reason}")


def _rows(saved: Any, name: str) -> list[Row]:
    """Read one of the lists of a saved file."""
    values = saved.get(name) if isinstance(saved, dict) else None
    if not isinstance(values, list):
        raise ValueError(f"it has no list of {name}")
    rows = []
    for row in values:
        try:
            rows.append(Row.from_dict(row))
        except (TypeError, ValueError) as error:
            raise ValueError(f"in {name}: {error}") from error
    return rows
