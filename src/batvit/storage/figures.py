"""What all figures share: colours, markers, the text of a legend, and how they are saved."""

import io
from collections.abc import Sequence
from pathlib import Path

import matplotlib as mpl
from matplotlib.figure import Figure
from matplotlib.legend import Legend
from PIL import Image

from batvit.storage.files import check_writable, write_atomic
from batvit.storage.formats import FIGURE_FORMATS, PICTURE_FORMATS

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


def save(picture: Image.Image | Figure, path: str | Path) -> Path:
    """Write a picture or a figure, whole or not at all; the same one gives the same bytes.

    Args:
        picture: a picture for .png, .jpg, .jpeg or .webp, or a figure for .png, .svg or .pdf.
        path: its suffix says which.

    Raises:
        ValueError: if the suffix is none of these.
        OSError: if the path cannot be written. Both are raised before any work.
    """
    path = Path(path)
    kind = "pictures"
    formats = PICTURE_FORMATS
    if isinstance(picture, Figure):
        kind = "figures"
        formats = FIGURE_FORMATS
    if path.suffix.lower() not in formats:
        raise ValueError(
            f"cannot save {path}: {kind} are {', '.join(formats)}, got {path.suffix!r}; "
            "change the suffix"
        )
    check_writable(path)
    name = formats[path.suffix.lower()]
    if isinstance(picture, Figure):
        content = _figure_bytes(picture, name)
    else:
        content = _picture_bytes(picture, name)
    return write_atomic(path, content)


def _figure_bytes(figure: Figure, name: str) -> bytes:
    content = io.BytesIO()
    # names inside of an SVG are random without a salt
    with mpl.rc_context({"svg.hashsalt": "batvit"}):
        figure.savefig(content, format=name, metadata=NO_DATE.get(name))
    return content.getvalue()


def _picture_bytes(picture: Image.Image, name: str) -> bytes:
    content = io.BytesIO()
    if name == "JPEG":
        picture.convert("RGB").save(content, name, quality=95, subsampling=0)
    else:
        picture.save(content, name, lossless=True)
    return content.getvalue()
