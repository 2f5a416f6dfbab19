"""What all figures share: colours, markers, the text of a legend, and how one is saved."""

import io
from collections.abc import Sequence
from pathlib import Path

import matplotlib as mpl
from matplotlib.figure import Figure
from matplotlib.legend import Legend

from batvit.storage.files import write_atomic
from batvit.storage.formats import FIGURE_FORMATS, check_format

# Okabe and Ito's colours, which colour-blind readers tell apart, without the yellow, which is too
# faint for a line on white
CURVE_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000")
"""the colour of each line, in order"""

CURVE_MARKERS = "osD^vP*X"
"""the marker of each line, in order: one more than colours, so that 56 lines in a row differ"""

# a date would make the bytes of the same figure differ
NO_DATE = {"svg": {"Date": None}, "pdf": {"CreationDate": None}}


def name_entries(legend: Legend, labels: Sequence[str]) -> None:
    """Write the labels into a legend as they are, one for each of its entries.

    Matplotlib would leave out a label that starts with an underscore, and read ``$`` as a formula.
    """
    for text, label in zip(legend.get_texts(), labels, strict=True):
        text.set_text(label)
        text.set_parse_math(False)


def save(figure: Figure, path: str | Path) -> Path:
    """Write a figure, whole or not at all; the same one gives the same bytes.

    Args:
        figure: of matplotlib.
        path: its suffix is .png, .svg or .pdf.

    Raises:
        ValueError: if the suffix is none of these.
        OSError: if the path cannot be written. Both are raised before any work.
    """
    path = Path(path)
    name = check_format(path, FIGURE_FORMATS, kind="figures")
    content = io.BytesIO()
    # names inside of an SVG are random without a salt
    with mpl.rc_context({"svg.hashsalt": "batvit"}):
        figure.savefig(content, format=name, metadata=NO_DATE.get(name))
    return write_atomic(path, content.getvalue())
