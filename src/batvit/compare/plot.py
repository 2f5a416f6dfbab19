"""Accuracy over measured speed, as a figure."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from batvit.storage.figures import CURVE_COLOURS, CURVE_MARKERS, name_entries

# the star is the dense model's; eight markers, seven colours: 56 plans are all different
PLAN_MARKERS = CURVE_MARKERS.replace("*", "<")


# points: up to here the axis is all but linear; and where it has ticks
LINEAR, LOST = 2.0, (20, 10, 5, 2, 1, 0, -1, -2, -5, -10, -20, -50)


def plot_pareto(rows: Sequence[Mapping[str, Any]], dense: Mapping[str, Any]) -> Figure:
    """Top-1 over speed, a colour and marker a plan; agreement with the dense model where top-1 is not known.

    Filled at equal MACs, hollow at equal time; bars are the 95 % intervals of the difference to the dense model. The step line
    joins what nothing beats in both. BAT is drawn above the others, and larger. A row without one of its two values is left
    out. The upright axis is finer near the dense model's value, so that one plan that loses much does not hide the others.

    Args:
        rows: what :func:`batvit.study.as_result` gives, one for each plan, target and kind of cost.
        dense: the dense model's.

    Raises:
        ValueError: if there is no row with both values.
    """
    known = dense.get("top1") is not None and any(row.get("top1") is not None for row in rows)
    what, name = ("top1", "top-1 (%)") if known else ("agreement", "same class as dense (%)")
    # without it the dense model agrees with itself
    whole = 100.0 if dense.get(what) is None else float(dense[what])
    seen = [
        (x, row)
        for row in rows
        if (x := _saved(row, dense)) is not None and row.get(what) is not None
    ]
    points = [(x, float(row[what]), row) for x, row in seen]
    if not points:
        raise ValueError("rows is empty; give what a comparison found for each plan")
    figure = Figure(figsize=(9.6, 5.6), dpi=150, layout="constrained")
    axes = figure.add_subplot()
    for i, plan in enumerate(dict.fromkeys(row["plan"] for *_, row in points)):
        _plan(
            axes,
            i,
            is_bat(plan),
            [point for point in points if point[2]["plan"] == plan],
            whole if known else None,
        )
    front = _front([(1.0, whole), *((x, y) for x, y, _ in points)])
    axes.step(*zip(*front, strict=True), where="pre", color="grey", linewidth=1, zorder=1)
    axes.axhline(whole, color="black", linewidth=0.8, linestyle=":", zorder=1)
    axes.plot(1.0, whole, color="black", marker="*", markersize=15, linestyle="none", zorder=5)
    _finer_near(axes, whole)
    axes.set(xlabel="times as fast as dense, in batches", ylabel=name)
    axes.grid(alpha=0.3)
    _legend(figure, list(dict.fromkeys(str(row["plan"]) for *_, row in points)))
    return figure


def _saved(row: Mapping[str, Any], dense: Mapping[str, Any]) -> float | None:
    """How often its time goes into the dense model's: as measured in turns, or else of the two times."""
    if (ratio := row.get("speedup")) is not None:
        return float(ratio)
    whole, part = dense.get("step_time"), row.get("step_time")
    return whole / part if whole is not None and part else None


def _plan(
    axes: Axes,
    i: int,
    first: bool,
    points: Sequence[tuple[float, float, Mapping[str, Any]]],
    whole: float | None,
) -> None:
    """The points of one plan on a faint line, with bars where the dense model's top-1 is known."""
    style, above = _style(i, first), 4 if first else 2
    line = sorted((x, y) for x, y, _ in points)
    axes.plot(
        *zip(*line, strict=True),
        color=style["color"],
        linewidth=2.2 if first else 0.8,
        alpha=0.5,
        zorder=above - 0.5,
    )
    for x, y, row in points:
        low, high = row.get("difference_low"), row.get("difference_high")
        if whole is not None and low is not None and high is not None:
            axes.vlines(
                x,
                whole + low,
                whole + high,
                colors=style["color"],
                linewidth=1,
                alpha=0.35,
                zorder=above - 1,
            )
        face = style["color"] if row.get("at") == "macs" else "white"
        axes.plot(x, y, **style, markerfacecolor=face, zorder=above)


def _finer_near(axes: Axes, whole: float) -> None:
    """Linear for some points around the dense model's value, logarithmic beyond; a tick says the value and what is lost."""

    def forward(values: Any) -> Any:
        return np.arcsinh((np.asarray(values) - whole) / LINEAR)

    def back(places: Any) -> Any:
        # margins of the figure may lie far out
        return whole + LINEAR * np.sinh(np.clip(places, -50, 50))

    axes.set_yscale("function", functions=(forward, back))
    axes.yaxis.set_major_locator(
        FixedLocator([whole + lost for lost in LOST if 0 <= whole + lost <= 100])
    )
    axes.yaxis.set_major_formatter(
        FuncFormatter(lambda y, _: f"{y:.1f}" if y == whole else f"({y - whole:+.0f})  {y:.1f}")
    )
    axes.yaxis.set_minor_locator(NullLocator())


def is_bat(plan: str) -> bool:
    """Whether a plan is one of ours."""
    return plan.partition("_")[0] == "bat"


def _style(i: int, first: bool) -> dict[str, Any]:
    colour, marker = CURVE_COLOURS[i % len(CURVE_COLOURS)], PLAN_MARKERS[i % len(PLAN_MARKERS)]
    size, edge = (10, 2.2) if first else (6.5, 1.3)
    return {
        "color": colour,
        "marker": marker,
        "markersize": size,
        "markeredgewidth": edge,
        "linestyle": "none",
    }


def _legend(figure: Figure, plans: Sequence[str]) -> None:
    """Beside the axes: the plans, then what holds for all of them."""
    grey: dict[str, Any] = {
        "color": "grey",
        "marker": "o",
        "markersize": 6.5,
        "markeredgewidth": 1.3,
        "linestyle": "none",
    }
    others = {
        "dense": Line2D([], [], color="black", marker="*", markersize=12, linestyle="none"),
        "equal MACs": Line2D([], [], **grey),
        "equal time": Line2D([], [], **grey, markerfacecolor="white"),
        "nothing is better in both": Line2D([], [], color="grey", linewidth=1),
    }
    handles = [Line2D([], [], **_style(i, is_bat(plan))) for i, plan in enumerate(plans)] + list(
        others.values()
    )
    legend = figure.legend(
        handles, map(str, range(len(handles))), loc="outside right upper", fontsize="small"
    )
    name_entries(legend, [*plans, *others])


def _front(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """Those that no other beats in both coordinates, by rising first one."""
    front: list[tuple[float, float]] = []
    for point in sorted(points, reverse=True):
        if not front or point[1] > front[-1][1]:
            front.append(point)
    return front[::-1]
