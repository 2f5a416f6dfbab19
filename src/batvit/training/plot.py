"""Loss and accuracy of training runs over the epochs, as a figure."""

from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from batvit.storage.figures import CURVE_COLOURS, CURVE_MARKERS, name_entries
from batvit.training.logs import TrainingCurve

MARKERS_A_LINE = 25
"""more of them would hide the line of a long run"""
LEGEND_WIDTH = 100
"""in characters"""
LEGEND_COLUMNS = 4


def plot_curves(curves: Sequence[TrainingCurve]) -> Figure:
    """Plot training loss and top-1 over the epochs, side by side, a line a run.

    A line joins the epochs that have a value. The legend has the best top-1 of each run.

    Args:
        curves: of :func:`batvit.training.logs.read_curve`.

    Raises:
        ValueError: if there is no curve.
    """
    if not curves:
        raise ValueError("curves is empty; give what read_curve returns for each run")
    figure = Figure(figsize=(9.6, 4.2), dpi=150, layout="constrained")
    left, right = figure.subplots(1, 2)
    for number, curve in enumerate(curves):
        _draw(left, number, [(point.epoch, point.train_loss) for point in curve.points])
        _draw(right, number, [(point.epoch, point.top1) for point in curve.points])
    left.set(xlabel="epoch", ylabel="training loss")
    right.set(xlabel="epoch", ylabel="top-1 (%)")
    for axes in (left, right):
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.grid(alpha=0.3)
    _add_legend(figure, left, [_label(curve) for curve in curves])
    return figure


def _draw(axes: Axes, number: int, points: Sequence[tuple[int, float | None]]) -> None:
    """Draw the line of a run through the epochs that have a value; it has no point if none has."""
    known = [(epoch, value) for epoch, value in points if value is not None]
    axes.plot(
        [epoch for epoch, _ in known],
        [value for _, value in known],
        color=CURVE_COLOURS[number % len(CURVE_COLOURS)],
        marker=CURVE_MARKERS[number % len(CURVE_MARKERS)],
        markersize=5,
        linewidth=1.8,
        markevery=1 + len(known) // MARKERS_A_LINE,
    )


def _label(curve: TrainingCurve) -> str:
    return curve.name if curve.best is None else f"{curve.name} ({curve.best.top1:.1f})"


def _add_legend(figure: Figure, axes: Axes, labels: Sequence[str]) -> None:
    longest = max(len(label) for label in labels)
    columns = max(1, min(LEGEND_COLUMNS, len(labels), LEGEND_WIDTH // (1 + longest)))
    # placeholders, as matplotlib would leave out some labels
    numbers = [str(number) for number in range(len(labels))]
    legend = figure.legend(axes.lines, numbers, loc="outside upper center", ncols=columns)
    name_entries(legend, labels)
