"""The diversity of the tokens through the blocks, as a figure."""

import math
from collections.abc import Mapping, Sequence

from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from batvit.storage.figures import CURVE_COLOURS, CURVE_MARKERS, name_entries


def plot_diversity(curves: Mapping[str, Sequence[float]]) -> Figure:
    """Plot what :func:`batvit.diversity_by_block` gives, one line a model.

    Args:
        curves: name of the model to r(X) after each block, block 0 first.

    Raises:
        ValueError: if there is no curve, or one is empty or not finite.
    """
    if not curves:
        raise ValueError(
            "curves is empty; give what diversity_by_block returns for each model, by its name"
        )
    figure = Figure(figsize=(6.4, 4.2), dpi=150, layout="constrained")
    axes = figure.add_subplot()
    for i, (name, values) in enumerate(curves.items()):
        if len(values) == 0 or not all(math.isfinite(value) for value in values):
            raise ValueError(
                f"curve {name!r} must be a finite number for each block, got {list(values)}"
            )
        axes.plot(
            range(len(values)),
            list(values),
            color=CURVE_COLOURS[i % len(CURVE_COLOURS)],
            marker=CURVE_MARKERS[i % len(CURVE_MARKERS)],
            markersize=5,
            linewidth=1.8,
            label=str(i),
        )
    axes.set(xlabel="block (from 0)", ylabel="diversity r(X)", ylim=(0, None))
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(alpha=0.3)
    name_entries(axes.legend(), list(curves))
    return figure
