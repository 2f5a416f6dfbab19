"""The speed-up over the batch size, as a figure."""

from collections.abc import Sequence

from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator

from batvit.measure.speed import Comparison
from batvit.storage.figures import CURVE_COLOURS, CURVE_MARKERS


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
            batches,
            [each.speedup for each in line],
            color=colour,
            marker=marker,
            markersize=5,
            linewidth=1.8,
            label=mode,
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
