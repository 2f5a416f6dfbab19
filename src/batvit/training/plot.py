"""Loss and accuracy over the epochs, as a figure."""

from collections.abc import Sequence

from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from batvit.storage.figures import CURVE_COLOURS, CURVE_MARKERS, name_entries
from batvit.training.logs import Curve


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
        style = {
            "color": CURVE_COLOURS[i % len(CURVE_COLOURS)],
            "marker": CURVE_MARKERS[i % len(CURVE_MARKERS)],
        }
        for axes, name in ((left, "train_loss"), (right, "top1")):
            known = [
                (point.epoch, getattr(point, name))
                for point in curve.points
                if getattr(point, name) is not None
            ]
            # in a long run markers at every epoch would hide the line
            every = 1 + len(known) // 25
            axes.plot(
                *zip(*known, strict=True) if known else ((), ()),
                **style,
                markersize=5,
                linewidth=1.8,
                markevery=every,
            )
        labels.append(curve.name if curve.best is None else f"{curve.name} ({curve.best.top1:.1f})")
    left.set(xlabel="epoch", ylabel="training loss")
    right.set(xlabel="epoch", ylabel="top-1 (%)")
    for axes in (left, right):
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.grid(alpha=0.3)
    columns = max(1, min(4, len(labels), 100 // (1 + max(map(len, labels)))))
    legend = figure.legend(
        left.lines, map(str, range(len(labels))), loc="outside upper center", ncols=columns
    )
    name_entries(legend, labels)
    return figure
