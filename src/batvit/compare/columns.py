"""The columns of the report's tables: which number each shows, and how it is written."""

from collections.abc import Mapping
from typing import Any, NamedTuple

from batvit.compare.rows import DENSE

Fields = Mapping[str, Any]
"""a row as JSON has it; anything may be missing or wrong in it"""

UNKNOWN = "\N{EN DASH}"
MINUS = "\N{MINUS SIGN}"
LARGEST = 1e300


class Column(NamedTuple):
    """A number of every row."""

    title: str
    name: str
    """of the field"""
    text: str
    """how it is written"""
    more: bool | None
    """whether more is better; None if neither is"""


DIFFERENCE = Column("difference [95 %]", "difference", "{:+z.1f}", True)
COLUMNS = (
    Column("top-1 %", "top1", "{:.1f}", True),
    DIFFERENCE,
    Column("top-5 %", "top5", "{:.1f}", True),
    Column("same class %", "agreement", "{:.1f}", True),
    Column("KL", "kl", "{:.3f}", False),
    Column("G MACs", "gmacs", "{:.3f}", None),
    Column("MACs left", "mac_share", "{:.1%}", None),
    Column("speed-up", "speedup", "{:.2f}", True),
    Column("realised", "realised_share", "{:.2f}", True),
    Column("images/s", "samples_per_sec", "{:.1f}", True),
    Column("ms/batch (IQR)", "step_time", "{:.1f}", False),
    Column("ms alone (IQR)", "latency_ms", "{:.1f}", False),
    Column("peak MB", "peak_memory_mb", "{:.0f}", False),
)
# the spread that is shown behind a number
SPREADS = {"step_time": "step_time_iqr", "latency_ms": "latency_iqr"}
# columns in which times that spread too much name no best
TIMES = ("speedup", "realised_share", "samples_per_sec", "step_time", "latency_ms")


def finite(value: Any) -> float | None:
    """Return a value as a float, or None if it is no finite number."""
    if isinstance(value, int | float) and -LARGEST <= value <= LARGEST:
        return float(value)
    return None


def number(row: Fields, name: str) -> float | None:
    """Return a field that is a finite number, or None."""
    return finite(row.get(name))


def cell(row: Fields, column: Column, *, spread: bool = True) -> str:
    """Return a number as a table shows it, with its interval or spread; a dash if it is missing."""
    value = number(row, column.name)
    if value is None or (column is DIFFERENCE and row["plan"] == DENSE):
        return UNKNOWN
    text = column.text.format(value)
    if column is DIFFERENCE:
        low = number(row, "difference_low")
        high = number(row, "difference_high")
        if low is not None and high is not None:
            text += f" [{low:+z.1f}, {high:+z.1f}]"
    if spread and column.name in SPREADS:
        middle_half = number(row, SPREADS[column.name])
        if middle_half is not None:
            text += f" ({middle_half:.1f})"
    return text.replace("-", MINUS)


def percent(target: Any) -> str:
    """Return a target in percent; as it is, if it is no number."""
    share = finite(target)
    return str(target) if share is None else f"{100 * share:.4g} %"
