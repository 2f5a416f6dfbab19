"""What a benchmark found, and what runs logged, as figures: pure functions. :func:`batvit.visualize.save` writes them."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.legend import Legend
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator, NullLocator

from batvit.benchmark import Comparison
from batvit.curves import Curve

# Okabe and Ito's colours, which colour-blind readers tell apart; without their yellow, too faint for a line on white
CURVE_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000")
CURVE_MARKERS = "osD^vP*X"
# the star is the dense model's; eight markers, seven colours: 56 plans are all different
PLAN_MARKERS = CURVE_MARKERS.replace("*", "<")
# points: up to here the axis is all but linear; and where it has ticks
LINEAR, LOST = 2.0, (20, 10, 5, 2, 1, 0, -1, -2, -5, -10, -20, -50)


def plot_speedup(found: Sequence[Comparison]) -> Figure:
    """Speed-up over batch size, a line a mode, with the quartiles of its rounds as bars.

    Dashed lines show what the MACs promise, and the dense model.

    Args:
        found: a comparison for each batch size, in any order, all of the same two models.

    Raises:
        ValueError: if there is no comparison.
    """
    if not found:
        raise ValueError("found is empty; give a comparison for each batch size")
    figure = Figure(figsize=(6.4, 4.2), dpi=150, layout="constrained")
    axes = figure.add_subplot()
    ordered = sorted(found, key=lambda one: one.dense.batch_size)
    # one mode may be there at some batch sizes only
    modes = {each.mode: None for one in ordered for each in one.modes}
    for mode, colour, marker in zip(modes, CURVE_COLOURS, CURVE_MARKERS, strict=False):
        line = [each for one in ordered for each in one.modes if each.mode == mode]
        batches = [each.dense.batch_size for each in line]
        lows, highs = zip(*(each.speedup_quartiles for each in line), strict=True)
        axes.vlines(batches, lows, highs, colors=colour, linewidth=5, alpha=0.3)
        axes.plot(
            batches, [each.speedup for each in line], color=colour, marker=marker, markersize=5, linewidth=1.8, label=mode
        )
    axes.axhline(found[0].mac_ratio, color="black", linestyle="--", linewidth=1.2, label="MACs")
    axes.axhline(1, color="grey", linestyle="--", linewidth=1.2, label="dense")
    axes.set_xscale("log", base=2)
    batches = sorted({one.dense.batch_size for one in found})
    axes.set_xticks(batches, labels=[str(batch) for batch in batches])
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set(xlabel="batch size", ylabel="speed-up over dense")
    axes.grid(alpha=0.3)
    # beside the axes it hides no line
    figure.legend(loc="outside upper center", ncols=4)
    return figure


def plot_curves(curves: Sequence[Curve]) -> Figure:
    """Training loss and top-1 over the epochs, side by side, a line a run; the legend has the best top-1 of each.

    A line joins the epochs that have a value.

    Args:
        curves: of :func:`batvit.curves.read_curve`.

    Raises:
        ValueError: if there is no curve.
    """
    if not curves:
        raise ValueError("curves is empty; give what read_curve returns for each run")
    figure = Figure(figsize=(9.6, 4.2), dpi=150, layout="constrained")
    left, right = figure.subplots(1, 2)
    labels = []
    for i, curve in enumerate(curves):
        # there is a marker more than colours, so the first 56 lines are all different
        style = {"color": CURVE_COLOURS[i % len(CURVE_COLOURS)], "marker": CURVE_MARKERS[i % len(CURVE_MARKERS)]}
        for axes, name in ((left, "train_loss"), (right, "top1")):
            known = [(point.epoch, getattr(point, name)) for point in curve.points if getattr(point, name) is not None]
            # in a long run markers at every epoch would hide the line
            every = 1 + len(known) // 25
            axes.plot(*zip(*known, strict=True) if known else ((), ()), **style, markersize=5, linewidth=1.8, markevery=every)
        labels.append(curve.name if curve.best is None else f"{curve.name} ({curve.best.top1:.1f})")
    left.set(xlabel="epoch", ylabel="training loss")
    right.set(xlabel="epoch", ylabel="top-1 (%)")
    for axes in (left, right):
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.grid(alpha=0.3)
    columns = max(1, min(4, len(labels), 100 // (1 + max(map(len, labels)))))
    legend = figure.legend(left.lines, map(str, range(len(labels))), loc="outside upper center", ncols=columns)
    _name(legend, labels)
    return figure


def plot_diversity(curves: Mapping[str, Sequence[float]]) -> Figure:
    """Curves of :func:`batvit.trace.diversity_by_block`, one line a model.

    Args:
        curves: name of the model to r(X) after each block, block 0 first.

    Raises:
        ValueError: if there is no curve, or one is empty or not finite.
    """
    if not curves:
        raise ValueError("curves is empty; give what diversity_by_block returns for each model, by the model's name")
    figure = Figure(figsize=(6.4, 4.2), dpi=150, layout="constrained")
    axes = figure.add_subplot()
    for i, (name, values) in enumerate(curves.items()):
        if len(values) == 0 or not all(math.isfinite(v) for v in values):
            raise ValueError(f"curve {name!r} must be a finite number for each block, got {list(values)}")
        colour, marker = CURVE_COLOURS[i % len(CURVE_COLOURS)], CURVE_MARKERS[i % len(CURVE_MARKERS)]
        axes.plot(range(len(values)), list(values), color=colour, marker=marker, markersize=5, linewidth=1.8, label=str(i))
    axes.set(xlabel="block (from 0)", ylabel="diversity r(X)", ylim=(0, None))
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(alpha=0.3)
    _name(axes.legend(), list(curves))
    return figure


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
    seen = [(x, row) for row in rows if (x := _saved(row, dense)) is not None and row.get(what) is not None]
    points = [(x, float(row[what]), row) for x, row in seen]
    if not points:
        raise ValueError("rows is empty; give what a comparison found for each plan")
    figure = Figure(figsize=(9.6, 5.6), dpi=150, layout="constrained")
    axes = figure.add_subplot()
    for i, plan in enumerate(dict.fromkeys(row["plan"] for *_, row in points)):
        _plan(axes, i, is_bat(plan), [point for point in points if point[2]["plan"] == plan], whole if known else None)
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
    axes: Axes, i: int, first: bool, points: Sequence[tuple[float, float, Mapping[str, Any]]], whole: float | None
) -> None:
    """The points of one plan on a faint line, with bars where the dense model's top-1 is known."""
    style, above = _style(i, first), 4 if first else 2
    line = sorted((x, y) for x, y, _ in points)
    axes.plot(*zip(*line, strict=True), color=style["color"], linewidth=2.2 if first else 0.8, alpha=0.5, zorder=above - 0.5)
    for x, y, row in points:
        low, high = row.get("difference_low"), row.get("difference_high")
        if whole is not None and low is not None and high is not None:
            axes.vlines(x, whole + low, whole + high, colors=style["color"], linewidth=1, alpha=0.35, zorder=above - 1)
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
    axes.yaxis.set_major_locator(FixedLocator([whole + lost for lost in LOST if 0 <= whole + lost <= 100]))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda y, _: f"{y:.1f}" if y == whole else f"({y - whole:+.0f})  {y:.1f}"))
    axes.yaxis.set_minor_locator(NullLocator())


def is_bat(plan: str) -> bool:
    """Whether a plan is one of ours."""
    return plan.partition("_")[0] == "bat"


def _style(i: int, first: bool) -> dict[str, Any]:
    colour, marker = CURVE_COLOURS[i % len(CURVE_COLOURS)], PLAN_MARKERS[i % len(PLAN_MARKERS)]
    size, edge = (10, 2.2) if first else (6.5, 1.3)
    return {"color": colour, "marker": marker, "markersize": size, "markeredgewidth": edge, "linestyle": "none"}


def _legend(figure: Figure, plans: Sequence[str]) -> None:
    """Beside the axes: the plans, then what holds for all of them."""
    grey: dict[str, Any] = {"color": "grey", "marker": "o", "markersize": 6.5, "markeredgewidth": 1.3, "linestyle": "none"}
    others = {
        "dense": Line2D([], [], color="black", marker="*", markersize=12, linestyle="none"),
        "equal MACs": Line2D([], [], **grey),
        "equal time": Line2D([], [], **grey, markerfacecolor="white"),
        "nothing is better in both": Line2D([], [], color="grey", linewidth=1),
    }
    handles = [Line2D([], [], **_style(i, is_bat(plan))) for i, plan in enumerate(plans)] + list(others.values())
    legend = figure.legend(handles, map(str, range(len(handles))), loc="outside right upper", fontsize="small")
    _name(legend, [*plans, *others])


def _name(legend: Legend, labels: Sequence[str]) -> None:
    for text, label in zip(legend.get_texts(), labels, strict=True):
        # set here, because a label may start with an underscore, and no name is a formula
        text.set_text(label)
        text.set_parse_math(False)


def _front(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """Those that no other beats in both coordinates, by rising first one."""
    front: list[tuple[float, float]] = []
    for point in sorted(points, reverse=True):
        if not front or point[1] > front[-1][1]:
            front.append(point)
    return front[::-1]
