"""What a benchmark found, and what runs logged, as figures: pure functions. :func:`batvit.visualize.save` writes them."""

from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, NullLocator

from batvit.benchmark import Comparison
from batvit.curves import Curve
from batvit.visualize import CURVE_COLOURS, CURVE_MARKERS


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
    for text, label in zip(legend.get_texts(), labels, strict=True):
        # set here, because a label may start with an underscore, and no name is a formula
        text.set_text(label)
        text.set_parse_math(False)
    return figure


def plot_pareto(rows: Sequence[Mapping[str, Any]], dense: Mapping[str, Any]) -> Figure:
    """Top-1 over the measured speed-up, a colour and marker a plan; agreement with the dense model where top-1 is not known.

    Filled at equal MACs, hollow at equal time; bars are the 95 % intervals of the difference to the dense model. The step line
    joins what nothing beats in both. BAT is drawn last, and larger.

    Args:
        rows: what :func:`batvit.study.as_result` gives, one for each plan, target and kind of cost.
        dense: the dense model's.

    Raises:
        ValueError: if there is no row with a speed-up and an accuracy.
    """
    what = "agreement" if dense.get("top1") is None else "top1"
    shown = [row for row in rows if row.get(what) is not None and row.get("speedup") is not None]
    if not shown:
        raise ValueError("rows is empty; give what a comparison found for each plan")
    figure = Figure(figsize=(9.0, 5.4), dpi=150, layout="constrained")
    axes = figure.add_subplot()
    plans = list(dict.fromkeys(row["plan"] for row in shown))
    for i, plan in sorted(enumerate(plans), key=lambda one: one[1].startswith("bat")):
        style: dict[str, Any] = {"color": CURVE_COLOURS[i % len(CURVE_COLOURS)], "linestyle": "none"}
        style |= {"marker": CURVE_MARKERS[i % len(CURVE_MARKERS)], "markersize": 10 if plan.startswith("bat") else 6}
        axes.plot([], [], **style, label=plan)
        for at, filled in (("macs", True), ("time", False)):
            points = [row for row in shown if row["plan"] == plan and row["at"] == at]
            where = [row["speedup"] for row in points], [row[what] for row in points]
            if what == "top1" and all(row.get("difference_low") is not None for row in points):
                bars = [dense[what] + row[limit] for limit in ("difference_low", "difference_high") for row in points]
                half = len(points)
                axes.vlines(where[0], bars[:half], bars[half:], colors=style["color"], linewidth=1, alpha=0.4)
            face = style["color"] if filled else "white"
            axes.plot(*where, **style, markerfacecolor=face)
    front = _front([(1.0, dense[what]), *((row["speedup"], row[what]) for row in shown)])
    axes.step(*zip(*front, strict=True), where="pre", color="grey", linewidth=1, alpha=0.7, zorder=0)
    axes.plot(1.0, dense[what], color="black", marker="*", markersize=13, linestyle="none", label="dense")
    name = "top-1 (%)" if what == "top1" else "same class as dense (%)"
    axes.set(xlabel="times as fast as dense, measured; filled: at equal MACs, hollow: at equal time", ylabel=name)
    axes.grid(alpha=0.3)
    figure.legend(loc="outside right upper")
    return figure


def _front(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """Those that no other beats in both coordinates, by rising first one."""
    front: list[tuple[float, float]] = []
    for point in sorted(points, reverse=True):
        if not front or point[1] > front[-1][1]:
            front.append(point)
    return front[::-1]
