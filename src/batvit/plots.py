"""What a benchmark found, and what runs logged, as figures: pure functions. :func:`batvit.visualize.save` writes them."""

from collections.abc import Sequence

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
