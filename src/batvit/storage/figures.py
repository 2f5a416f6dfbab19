"""What a benchmark found, and what runs logged, as figures: pure functions. :func:`batvit.visualize.save` writes them."""

import io
from collections.abc import Sequence
from pathlib import Path

import matplotlib as mpl
from matplotlib.figure import Figure
from matplotlib.legend import Legend
from PIL import Image

from batvit.storage.files import check_writable, write_atomic

# Okabe and Ito's colours, which colour-blind readers tell apart; without their yellow, too faint for a line on white
CURVE_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000")
CURVE_MARKERS = "osD^vP*X"


def name_entries(legend: Legend, labels: Sequence[str]) -> None:
    for text, label in zip(legend.get_texts(), labels, strict=True):
        # set here, because a label may start with an underscore, and no name is a formula
        text.set_text(label)
        text.set_parse_math(False)


PICTURE_FORMATS = {".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG", ".webp": "WEBP"}


FIGURE_FORMATS = {".png": "png", ".svg": "svg", ".pdf": "pdf"}


def save(picture: Image.Image | Figure, path: str | Path) -> Path:
    """Write a picture (.png, .jpg, .jpeg, .webp) or a figure (.png, .svg, .pdf), whole or not at all.

    Raises:
        ValueError: if the suffix is none of these. OSError: if the path cannot be written. Both before any work.
    """
    path, is_figure = Path(path), isinstance(picture, Figure)
    formats = FIGURE_FORMATS if is_figure else PICTURE_FORMATS
    if path.suffix.lower() not in formats:
        kind = "figures" if is_figure else "pictures"
        raise ValueError(
            f"cannot save {path}: {kind} are {', '.join(formats)}, got {path.suffix!r}; change the suffix"
        )
    name, content = formats[check_writable(path).suffix.lower()], io.BytesIO()
    if isinstance(picture, Figure):
        # no date and no random names: the same curves give the same bytes
        dates = {"svg": {"Date": None}, "pdf": {"CreationDate": None}}
        with mpl.rc_context({"svg.hashsalt": "batvit"}):
            picture.savefig(content, format=name, metadata=dates.get(name))
    elif name == "JPEG":
        picture.convert("RGB").save(content, name, quality=95, subsampling=0)
    else:
        picture.save(content, name, lossless=True)
    return write_atomic(path, content.getvalue())
