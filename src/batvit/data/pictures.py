"""One picture decoded, strictly: what cannot be read is refused by name."""

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from io import BufferedReader, BytesIO
from pathlib import Path
from typing import Any

from PIL import Image, UnidentifiedImageError

from batvit.storage.files import first_line

# what a file holds decides, not its suffix; without EPS, on which Pillow would run Ghostscript
FORMATS = ("BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP")

Transform = Callable[[Image.Image], Any]
"""what prepares a picture for a model"""


class UnreadableError(ValueError):
    """A picture cannot be read. The message names it."""


def open_picture(path: Path) -> Image.Image:
    """Decode the picture in a file as RGB.

    Raises:
        UnreadableError: naming the file, if it is no picture, is cut short, or is larger than
            Pillow's safety limit.
    """
    return decode_picture(path, str(path))


def decode_picture(source: Path | BytesIO | BufferedReader, name: str) -> Image.Image:
    """Decode the picture in a file, which may be open already, as RGB.

    Args:
        source: the file.
        name: for the message.

    Raises:
        UnreadableError: as :func:`open_picture`.
    """
    with opened(source, name) as image:
        return image.convert("RGB")


@contextmanager
def opened(source: Path | BytesIO | BufferedReader, name: str) -> Iterator[Image.Image]:
    """Open a picture, of which the header alone is read until its pixels are asked for.

    Raises:
        UnreadableError: as :func:`open_picture`, whenever it shows within the block.
    """
    try:
        with warnings.catch_warnings():
            # up to twice its safety limit Pillow would only warn
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(source, formats=FORMATS) as image:
                yield image
    except Exception as error:
        # whatever a decoder stumbles over, the file is no good
        raise UnreadableError(f"{name}: cannot be read as a picture ({_reason(error)})") from error


def _reason(error: Exception) -> str:
    if isinstance(error, UnidentifiedImageError):
        return f"it is none of {', '.join(FORMATS)}"
    # the system's own words do not repeat the path
    return getattr(error, "strerror", None) or first_line(error)
