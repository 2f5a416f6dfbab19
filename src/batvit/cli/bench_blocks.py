"""``batvit bench --per-block``: the table of one block at several numbers of tokens."""

from collections.abc import Iterable, Mapping
from typing import Any

from rich.table import Table

from batvit.cli import console


def table(rows: Iterable[Mapping[str, Any]]) -> Table:
    """Make a table of flat block timings of one batch size."""
    result = console.table("tokens", "", "ms (iqr)", "us/token", "speed-up", "MAC ratio")
    for row in rows:
        names = [name for name in ("dense", "scheduled") if row[name]]
        result.add_row(
            str(row["tokens"]),
            ", ".join(names),
            f"{row['step_time']:.3f} ({row['step_time_iqr']:.3f})",
            f"{row['us_per_token']:.2f}",
            f"{row['speedup']:.2f}",
            f"{row['mac_ratio']:.2f}",
        )
    return result
