"""The tables of ``batvit bench``: of two models, and of one block at several numbers of tokens."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from rich.table import Table
from rich.text import Text

from batvit.cli import console


def models_table(rows: Sequence[Mapping[str, Any]]) -> Table:
    """Make a table of flat comparisons: a line for each model, batch size and mode."""
    several = any(row["compiled"] for row in rows)
    columns = ["batch", "", "ms (iqr)", "images/s", "peak MB", "speed-up", "realised"]
    if not several:
        # both modes must fit into 80 columns
        columns.append("reduction")
    table = console.table(*columns)
    for row in rows:
        # of what another engine does inside, nothing is seen
        share = f"{100 * row['reduction_share']:.1f} %" if row["reduction_share"] else ""
        speedup = console.factor(row["speedup"], _mark(row))
        speed: list[str | Text] = [speedup, f"{row['realised_share']:.2f}", share]
        for name, prefix, last in (("dense", "dense_", []), ("reduced", "", speed)):
            peak = row[f"{prefix}peak_memory_mb"]
            cells: list[str | Text] = [
                str(row["batch_size"]),
                f"{name} {row['mode']}" if several else name,
                f"{row[f'{prefix}step_time']:.1f} ({row[f'{prefix}step_time_iqr']:.1f})",
                f"{row[f'{prefix}samples_per_sec']:.1f}",
                f"{peak:.1f}" if peak else "",
                *last,
            ]
            table.add_row(*cells[: len(columns)])
    return table


def unsteady_note(rows: Iterable[Mapping[str, Any]]) -> str | None:
    """Say of speed-ups that are marked why they cannot be ranked; None if none is."""
    spreads = []
    for row in rows:
        if row["unsteady"]:
            low = row.get("speedup_low")
            high = row.get("speedup_high")
            middle = "" if low is None else f" ({low:.2f} to {high:.2f} in half of the rounds)"
            spreads.append(f"{row['speedup']:.2f}{middle}")
    if not spreads:
        return None
    return (
        f"? times spread too much to rank by the speed-up: {', '.join(spreads)}; let nothing else "
        "run, or give more --rounds"
    )


def _mark(row: Mapping[str, Any]) -> str:
    return "?" if row["unsteady"] else ""


def blocks_table(rows: Iterable[Mapping[str, Any]]) -> Table:
    """Make a table of flat block timings of one batch size."""
    result = console.table("tokens", "", "ms (iqr)", "us/token", "speed-up", "MAC ratio")
    for row in rows:
        names = [name for name in ("dense", "scheduled") if row[name]]
        result.add_row(
            str(row["tokens"]),
            ", ".join(names),
            f"{row['step_time']:.3f} ({row['step_time_iqr']:.3f})",
            f"{row['us_per_token']:.2f}",
            console.factor(row["speedup"], _mark(row)),
            f"{row['mac_ratio']:.2f}",
        )
    return result
