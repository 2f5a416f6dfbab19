"""What fewer tokens are worth to one block: it is timed at the numbers of tokens of a schedule, and at round ones."""

from typing import Any

from rich.table import Table

from batvit.cli import console


def table(rows: list[dict[str, Any]]) -> Table:
    """What :func:`measure` found, to be read."""
    result = console.table("tokens", "", "ms (iqr)", "us/token", "speed-up", "MAC ratio")
    for row in rows:
        result.add_row(
            str(row["tokens"]),
            ", ".join(name for name in ("dense", "scheduled") if row[name]),
            f"{row['step_time']:.3f} ({row['step_time_iqr']:.3f})",
            f"{row['us_per_token']:.2f}",
            f"{row['speedup']:.2f}",
            f"{row['mac_ratio']:.2f}",
        )
    return result
