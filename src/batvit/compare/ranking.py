"""What a comparison says, in words: its numbers as text, who ranks before whom, and which plan keeps most."""

import math
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any, NamedTuple

from batvit.compare.results import COSTS

Fields = Mapping[str, Any]

VERDICTS = {"difference": "loses least", "agreement": "gives the dense model's class most often"}
UNKNOWN, MINUS, NAMED, LARGEST = "\N{EN DASH}", "\N{MINUS SIGN}", 4, 1e300


class Column(NamedTuple):
    """A number of every row: its heading, its field, how it is written, and whether more is better (None: neither)."""

    title: str
    name: str
    text: str
    more: bool | None


DIFFERENCE = Column("difference [95 %]", "difference", "{:+z.1f}", True)


def number(row: Fields, name: str) -> float | None:
    """A finite number, or nothing."""
    value = row.get(name)
    return float(value) if isinstance(value, int | float) and -LARGEST <= value <= LARGEST else None


def shown(row: Fields, column: Column) -> str:
    """As it is written in a table, with a minus that is one; nothing if it is missing."""
    value = number(row, column.name)
    if value is None or (column.name == "difference" and row["plan"] == "dense"):
        return UNKNOWN
    text = column.text.format(value)
    if column.name == "difference":
        low, high = (number(row, name) for name in ("difference_low", "difference_high"))
        text += "" if low is None or high is None else f" [{low:+z.1f}, {high:+z.1f}]"
    spread = number(row, "step_time_iqr") if column.name == "step_time" else None
    return (text if spread is None else f"{text} ({spread:.1f})").replace("-", MINUS)


def share(target: Any) -> str:
    """A target in percent; as it is, if it is no number."""
    return (
        str(target) if (part := number({"part": target}, "part")) is None else f"{100 * part:.4g} %"
    )


def measure(result: Mapping[str, Any]) -> str:
    """By which field plans are ranked."""
    return (
        "difference"
        if any(number(row, "difference") is not None for row in result["rows"])
        else "agreement"
    )


def ranked(result: Mapping[str, Any], target: Any, at: Any) -> list[Fields]:
    """Those that keep most first, then those of whom that is not known, then those off target."""
    name = measure(result)
    rows = [row for row in result["rows"] if (row["target"], row["at"]) == (target, at)]
    rows.sort(
        key=lambda row: -math.inf if (value := number(row, name)) is None else value, reverse=True
    )
    return sorted(rows, key=is_off)


def is_off(row: Fields) -> bool:
    """Whether its share of the time is not near the target."""
    return bool(row.get("off_target"))


def groups(result: Mapping[str, Any]) -> list[tuple[Any, Any]]:
    """The targets, each with the cost that it is a share of."""
    return list(dict.fromkeys((row["target"], row["at"]) for row in result["rows"]))


def summary(result: Mapping[str, Any]) -> str:
    """A sentence or two for each target and cost, and how many there are not."""
    text = "All plans reduce the same model and saw the same pictures."
    if measure(result) == "difference":
        text += " Differences are to the dense model's top-1, in points, with their 95 % intervals in brackets."
    if missing := len(result.get("failed", ())):
        text += f" Goals that were not reached: {missing}; the reasons stand below the tables."
    items = "".join(f"<li>{_verdict(result, *group)}</li>" for group in groups(result))
    return f"<p>{text}</p>" + (f"<ul>{items}</ul>" if items else "<p>Nothing was measured.</p>")


def _verdict(result: Mapping[str, Any], target: Any, at: Any) -> str:
    """Which plan that is on target keeps most, and whom the intervals do not set apart from it."""
    name, every = measure(result), ranked(result, target, at)
    rows = [row for row in every if number(row, name) is not None and not is_off(row)]
    where = f"At {escape(share(target))} of the dense model's {escape(COSTS.get(at, str(at)))}"
    if not rows:
        return (
            f"{where}, no plan is near."
            if any(map(is_off, every))
            else f"{where}, no accuracy is known."
        )
    plans = [f"<strong>{escape(str(row['plan']))}</strong>" for row in rows[:2]]
    said, what = [_kept(row, name) for row in rows[:2]], VERDICTS[name]
    text = f"{where}, {plans[0]} {what}: {said[0]}" + (
        f"; then {plans[1]}: {said[1]}." if rows[1:] else "."
    )
    return text + _doubt(rows[0], rows[1:])


def _kept(row: Fields, name: str) -> str:
    """What a plan keeps, and at what speed."""
    kl, speed = number(row, "kl"), number(row, "speedup")
    text = (
        shown(row, DIFFERENCE)
        if name == "difference"
        else f"{row[name]:.1f} %" + ("" if kl is None else f", KL {kl:.3f}")
    )
    return text if speed is None else f"{text}, {speed:.2f} times as fast"


def _doubt(first: Fields, others: Sequence[Fields]) -> str:
    """What the intervals leave open: each is that of a difference to the dense model, not of one to another plan."""
    low, high = (number(first, name) for name in ("difference_low", "difference_high"))
    if low is None or high is None:
        return ""
    text = " Its interval holds 0: these pictures show no certain loss." if low <= 0 <= high else ""
    near = [
        str(row["plan"])
        for row in others
        if (top := number(row, "difference_high")) is not None and top >= low
    ]
    if not near:
        return text
    names = ", ".join(near[:NAMED]) + (
        f" and {len(near) - NAMED} more" if len(near) > NAMED else ""
    )
    return f"{text} Its interval overlaps with {escape(names)}: these pictures may not tell them apart."
