"""The speed-up over the batch size, as a figure."""

from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator

from batvit.measure.speed import SpeedComparison
from batvit.storage.figures import CURVE_COLOURS, CURVE_MARKERS


def plot_speedup(comparisons: Sequence[SpeedComparison]) -> Figure:
    """Draw the speed-up over the batch size, a line a mode, with the quartiles as bars.

    Dashed lines show what the MACs promise, and the dense model.

    Args:
        comparisons: one for each batch size, in any order, all of the same two models.

    Raises:
        ValueError: if there is no comparison.
    """
    if not comparisons:
        raise ValueError("comparisons is empty; give one for each batch size")
    figure = Figure(figsize=(6.4, 4.2), dpi=150, layout="constrained")
    axes = figure.add_subplot()
    ordered = sorted(comparisons, key=lambda comparison: comparison.dense.batch_size)
    # one mode may be there at some batch sizes only
    by_mode: dict[str, list[SpeedComparison]] = {}
    for comparison in ordered:
        for in_mode in comparison.modes:
            by_mode.setdefault(in_mode.mode, []).append(in_mode)
    styles = zip(CURVE_COLOURS, CURVE_MARKERS, strict=False)
    for (mode, line), (colour, marker) in zip(by_mode.items(), styles, strict=False):
        _draw_mode(axes, mode, line, colour, marker)
    mac_ratio = comparisons[0].mac_ratio
    axes.axhline(mac_ratio, color="black", linestyle="--", linewidth=1.2, label="MACs")
    axes.axhline(1, color="grey", linestyle="--", linewidth=1.2, label="dense")
    axes.set_xscale("log", base=2)
    batches = sorted({comparison.dense.batch_size for comparison in comparisons})
    axes.set_xticks(batches, labels=[str(batch) for batch in batches])
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set(xlabel="batch size", ylabel="speed-up over dense")
    axes.grid(alpha=0.3)
    # beside the axes it hides no line
    figure.legend(loc="outside upper center", ncols=4)
    return figure


def _draw_mode(
    axes: Axes, mode: str, line: Sequence[SpeedComparison], colour: str, marker: str
) -> None:
    batches = [comparison.dense.batch_size for comparison in line]
    lows = [comparison.speedups.low for comparison in line]
    highs = [comparison.speedups.high for comparison in line]
    axes.vlines(batches, lows, highs, colors=colour, linewidth=5, alpha=0.3)
    axes.plot(
        batches,
        [comparison.speedup for comparison in line],
        color=colour,
        marker=marker,
        markersize=5,
        linewidth=1.8,
        label=mode,
    )
