"""A finished comparison: its rows, its files, and its tables as plain text."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from batvit.compare.columns import COLUMNS, cell
from batvit.compare.plot import plot_pareto
from batvit.compare.results import Failure
from batvit.compare.rows import DENSE, Row, RowGroup
from batvit.measure.tables import as_csv, as_text
from batvit.storage.figures import save
from batvit.storage.files import write_atomic

REPORT = "report.html"
TABLE = "table.csv"
RESULT = "result.json"
PLOT = "pareto.png"
# the columns of the report that a terminal has room for, by short names
SHORT = {
    "top1": "top-1",
    "difference": "difference [95 %]",
    "agreement": "same",
    "kl": "KL",
    "gmacs": "GMACs",
    "speedup": "speed",
    "latency_ms": "ms alone",
}


@dataclass(frozen=True)
class Comparison:
    """What a comparison found. Printed, it is a plain table for each target and cost.

    Examples:
        As in the example of :func:`batvit.compare.run`:

        >>> row = comparison.to_dict()["rows"][0]
        >>> row["plan"], row["at"]
        ('topk', 'macs')
    """

    folder: Path
    """where the files are"""
    metadata: Mapping[str, Any]
    """the model, the pictures, the settings and the machine"""
    dense: Row
    rows: tuple[Row, ...]
    """of all plans at all targets"""
    failures: tuple[Failure, ...]
    """plans that do not meet a target, or failed"""
    notes: tuple[str, ...] = ()
    """what the report lacks"""

    @property
    def report(self) -> Path:
        """Everything, in one HTML file that needs nothing else."""
        return self.folder / REPORT

    @property
    def table(self) -> Path:
        """The rows as CSV."""
        return self.folder / TABLE

    @property
    def result(self) -> Path:
        """The file that holds :meth:`to_dict` as JSON."""
        return self.folder / RESULT

    @property
    def plot(self) -> Path:
        """Accuracy over measured speed, as PNG."""
        return self.folder / PLOT

    def to_dict(self) -> dict[str, Any]:
        """Return plain values: metadata, the dense model's row, those of the plans, failures."""
        return {
            **self.metadata,
            DENSE: self.dense.to_dict(),
            "rows": [row.to_dict() for row in self.rows],
            "failed": [failure.to_dict() for failure in self.failures],
        }

    def __str__(self) -> str:
        groups = dict.fromkeys(row.key.group for row in self.rows)
        parts = [self._group_text(group) for group in groups]
        parts += [str(failure) for failure in self.failures]
        return "\n".join(parts)

    def _group_text(self, group: RowGroup) -> str:
        """The table of a group, narrow enough for a terminal."""
        rows = [row for row in self.rows if row.key.group == group]
        lines = [
            f"at {group} of the dense model",
            as_text(("", *SHORT.values()), [_cells(row) for row in (self.dense, *rows)]),
        ]
        off_target = []
        for row in rows:
            if row.timing is not None and row.timing.off_target:
                off_target.append(f"{row.plan} takes {1 / row.timing.speedup:.3f}")
        if off_target:
            lines.append(f"* off target, not to be ranked: {', '.join(off_target)}")
        unsteady = []
        for row in rows:
            if row.timing is not None and row.timing.unsteady:
                low = row.timing.speedup_low
                unsteady.append(f"{row.plan} {low:.2f} to {row.timing.speedup_high:.2f}")
        if unsteady:
            lines.append(
                "? times spread too much to rank by (half of the rounds): " + ", ".join(unsteady)
            )
        return "\n".join(lines)


def write_tables(comparison: Comparison) -> None:
    """Write the rows as JSON, as CSV and as a plot."""
    result = comparison.to_dict()
    save(plot_pareto(result["rows"], result[DENSE]), comparison.plot)
    lines = []
    for row in (result[DENSE], *result["rows"]):
        lists = {name: json.dumps(row[name]) for name in ("config", "blocks", "tokens")}
        lines.append(row | lists)
    write_atomic(comparison.table, as_csv(lines))
    write_atomic(comparison.result, json.dumps(result, indent=2) + "\n")


def _cells(row: Row) -> list[str]:
    """Write a row of a table, with marks where its time is not to be ranked."""
    values = row.to_dict()
    cells = [f"{row.plan}*" if values["off_target"] else row.plan]
    for column in COLUMNS:
        if column.name in SHORT:
            text = cell(values, column, spread=False)
            marked = column.name == "speedup" and values["unsteady"]
            cells.append(f"{text}?" if marked else text)
    return cells
