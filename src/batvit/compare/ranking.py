"""Which plan keeps most: the order of the rows of each group, and what the intervals leave open."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from batvit.compare.columns import Fields, number


@dataclass(frozen=True)
class Lead:
    """Which plan keeps most in a group, and which ones the intervals do not set apart from it.

    An interval is that of a difference to the dense model, not of one to another plan.
    """

    first: Fields | None
    """the row that keeps most; None if of no row on target the accuracy is known"""
    second: Fields | None
    overlapping: tuple[str, ...]
    """plans whose intervals overlap with that of the first, the nearest first"""
    no_certain_loss: bool
    """whether the interval of the first holds 0"""
    some_off_target: bool
    """whether there are rows that are not ranked, as they do not take the time they should"""
    some_unsteady: bool = False
    """whether there are rows that are not ranked, as their times spread too much"""


def groups(result: Mapping[str, Any]) -> list[tuple[Any, Any]]:
    """Return the targets, each with the cost that it is a share of."""
    return list(dict.fromkeys((row["target"], row["at"]) for row in result["rows"]))


def ranked(result: Mapping[str, Any], target: Any, at: Any) -> list[Fields]:
    """Return the rows of a group: first those that keep most.

    Then those of which that is not known, and last those that are not to be ranked.
    """

    def place(row: Fields) -> tuple[bool, float]:
        value = number(row, "difference")
        return is_unranked(row), math.inf if value is None else -value

    rows = [row for row in result["rows"] if (row["target"], row["at"]) == (target, at)]
    return sorted(rows, key=place)


def is_off(row: Fields) -> bool:
    """Return whether a row's share of the time is not near the target."""
    return bool(row.get("off_target"))


def is_unsteady(row: Fields) -> bool:
    """Return whether the times of a row spread too much for its speed-up to be ranked by."""
    return bool(row.get("unsteady"))


def is_unranked(row: Fields) -> bool:
    """Return whether a row has no place among those of its group: its time is not the target's.

    At equal MACs times decide nothing.
    """
    return is_off(row) or (is_unsteady(row) and row["at"] == "time")


def lead(result: Mapping[str, Any], target: Any, at: Any) -> Lead:
    """Return which plan of a group keeps most."""
    in_group = ranked(result, target, at)
    rows = []
    for row in in_group:
        if number(row, "difference") is not None and not is_unranked(row):
            rows.append(row)
    some_off_target = any(is_off(row) for row in in_group)
    some_unsteady = at == "time" and any(is_unsteady(row) for row in in_group)
    if not rows:
        return Lead(None, None, (), False, some_off_target, some_unsteady)
    low = number(rows[0], "difference_low")
    high = number(rows[0], "difference_high")
    overlapping = []
    no_certain_loss = False
    if low is not None and high is not None:
        no_certain_loss = low <= 0 <= high
        for row in rows[1:]:
            top = number(row, "difference_high")
            if top is not None and top >= low:
                overlapping.append(str(row["plan"]))
    second = rows[1] if len(rows) > 1 else None
    return Lead(
        rows[0], second, tuple(overlapping), no_certain_loss, some_off_target, some_unsteady
    )
