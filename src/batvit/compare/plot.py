"""Accuracy over measured speed, as a figure."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from batvit.compare.rows import is_bat
from batvit.measure.pareto import pareto_front
from batvit.storage.figures import CURVE_COLOURS, CURVE_MARKERS, name_entries

# the star is the dense model's; eight markers, seven colours: 56 plans are all different
PLAN_MARKERS = CURVE_MARKERS.replace("*", "<")
# points of top-1: up to here the axis is all but linear
LINEAR = 2.0
# points lost at which the axis has ticks
TICKS = (20, 10, 5, 2, 1, 0, -1, -2, -5, -10, -20, -50)


class Point(NamedTuple):
    """A row's place in the figure."""

    speedup: float
    accuracy: float
    row: Mapping[str, Any]


def plot_pareto(rows: Sequence[Mapping[str, Any]], dense: Mapping[str, Any]) -> Figure:
    """Draw top-1 over speed.

    A colour and marker is a plan, filled at equal MACs, hollow at equal time; upright bars are the
    95 % intervals of the difference to the dense model, level ones the middle half of the rounds'
    speed-ups. The step line joins what nothing beats in both, of rows whose times are steady. BAT
    is drawn above the others, and larger. A row without one of its two values is left out. The
    upright axis is finer near the dense model's value, so that one plan that loses much does not
    hide the others.

    Args:
        rows: as :meth:`batvit.compare.Comparison.to_dict` has them.
        dense: the dense model's.

    Raises:
        ValueError: if there is no row with both values.
    """
    points = _points(rows, dense)
    if not points:
        raise ValueError("rows is empty; give what a comparison found for each plan")
    dense_accuracy = float(dense["top1"])
    plans = list(dict.fromkeys(str(point.row["plan"]) for point in points))
    figure = Figure(figsize=(9.6, 5.6), dpi=150, layout="constrained")
    axes = figure.add_subplot()
    for i, plan in enumerate(plans):
        of_plan = [point for point in points if str(point.row["plan"]) == plan]
        _draw_plan(axes, i, plan, of_plan, dense_accuracy)
    steady = [point for point in points if not point.row.get("unsteady")]
    _draw_front(axes, [Point(1.0, dense_accuracy, dense), *steady])
    axes.axhline(dense_accuracy, color="black", linewidth=0.8, linestyle=":", zorder=1)
    star = {"color": "black", "marker": "*", "markersize": 15, "linestyle": "none"}
    axes.plot(1.0, dense_accuracy, **star, zorder=5)  # type: ignore[arg-type]
    _set_scale(axes, dense_accuracy)
    axes.set(xlabel="times as fast as dense, in batches", ylabel="top-1 (%)")
    axes.grid(alpha=0.3)
    _draw_legend(figure, plans)
    return figure


def _points(rows: Sequence[Mapping[str, Any]], dense: Mapping[str, Any]) -> list[Point]:
    """Return the places of the rows that have one."""
    points = []
    for row in rows:
        speedup = _speedup(row, dense)
        if speedup is not None and row.get("top1") is not None:
            points.append(Point(speedup, float(row["top1"]), row))
    return points


def _speedup(row: Mapping[str, Any], dense: Mapping[str, Any]) -> float | None:
    """Return a row's speed-up as measured in turns, or else of the two times."""
    if row.get("speedup") is not None:
        return float(row["speedup"])
    dense_time = dense.get("step_time")
    time = row.get("step_time")
    if dense_time is None or time is None:
        return None
    return float(dense_time / time)


def _draw_plan(
    axes: Axes, i: int, plan: str, points: Sequence[Point], dense_accuracy: float
) -> None:
    """Draw the points of a plan on a faint line, with bars."""
    style = _marker_style(i, plan)
    height = 4 if is_bat(plan) else 2
    line = sorted((point.speedup, point.accuracy) for point in points)
    axes.plot(
        [x for x, _ in line],
        [y for _, y in line],
        color=style["color"],
        linewidth=2.2 if is_bat(plan) else 0.8,
        alpha=0.5,
        zorder=height - 0.5,
    )
    for x, y, row in points:
        low = row.get("difference_low")
        high = row.get("difference_high")
        if low is not None and high is not None:
            axes.vlines(
                x,
                dense_accuracy + low,
                dense_accuracy + high,
                colors=style["color"],
                linewidth=1,
                alpha=0.35,
                zorder=height - 1,
            )
        slow = row.get("speedup_low")
        fast = row.get("speedup_high")
        if slow is not None and fast is not None:
            axes.hlines(y, slow, fast, colors=style["color"], linewidth=1, zorder=height - 1)
        face = style["color"] if row.get("at") == "macs" else "white"
        axes.plot(x, y, **style, markerfacecolor=face, zorder=height)


def _draw_front(axes: Axes, points: Sequence[Point]) -> None:
    """Join the points that no other beats in both."""
    front = pareto_front(
        points, cost=lambda point: -point.speedup, loss=lambda point: -point.accuracy
    )
    front.reverse()
    axes.step(
        [point.speedup for point in front],
        [point.accuracy for point in front],
        where="pre",
        color="grey",
        linewidth=1,
        zorder=1,
    )


def _set_scale(axes: Axes, dense_accuracy: float) -> None:
    """Make the upright axis linear for some points around the dense model, logarithmic beyond.

    A tick says the value, and what is lost.
    """

    def forward(values: Any) -> Any:
        return np.arcsinh((np.asarray(values) - dense_accuracy) / LINEAR)

    def back(places: Any) -> Any:
        # margins of the figure may lie far out
        return dense_accuracy + LINEAR * np.sinh(np.clip(places, -50, 50))

    def label(value: float, _: Any) -> str:
        if value == dense_accuracy:
            return f"{value:.1f}"
        return f"({value - dense_accuracy:+.0f})  {value:.1f}"

    axes.set_yscale("function", functions=(forward, back))
    ticks = [dense_accuracy + lost for lost in TICKS if 0 <= dense_accuracy + lost <= 100]
    axes.yaxis.set_major_locator(FixedLocator(ticks))
    axes.yaxis.set_major_formatter(FuncFormatter(label))
    axes.yaxis.set_minor_locator(NullLocator())


def _marker_style(i: int, plan: str) -> dict[str, Any]:
    """Return how the points of a plan are drawn."""
    return {
        "color": CURVE_COLOURS[i % len(CURVE_COLOURS)],
        "marker": PLAN_MARKERS[i % len(PLAN_MARKERS)],
        "markersize": 10 if is_bat(plan) else 6.5,
        "markeredgewidth": 2.2 if is_bat(plan) else 1.3,
        "linestyle": "none",
    }


def _draw_legend(figure: Figure, plans: Sequence[str]) -> None:
    """Draw beside the axes: the plans, then what holds for all of them."""
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
    handles = [Line2D([], [], **_marker_style(i, plan)) for i, plan in enumerate(plans)]
    handles += others.values()
    numbers = [str(i) for i in range(len(handles))]
    legend = figure.legend(handles, numbers, loc="outside right upper", fontsize="small")
    name_entries(legend, [*plans, *others])
