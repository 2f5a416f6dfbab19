"""Decode one picture, strictly: what cannot be read is refused by name."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from io import BufferedReader, BytesIO
from pathlib import Path

from PIL import Image, UnidentifiedImageError

# what a file holds decides, not its suffix; EPS is not among them, because Pillow would run Ghostscript on it
FORMATS = ("BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP")


class UnreadableError(ValueError):
    """A picture cannot be read. The message names it."""


def open_picture(path: Path) -> Image.Image:
    """Decode one picture as RGB.

    Raises:
        UnreadableError: naming the file, if it is no picture, is cut short, or is larger than Pillow's safety limit.
    """
    return decode_picture(path, str(path))


def decode_picture(source: Path | BytesIO | BufferedReader, name: str) -> Image.Image:
    """:func:`open_picture` of a file that is open already, and has a name to tell."""
    with opened(source, name) as image:
        return image.convert("RGB")


@contextmanager
def opened(source: Path | BytesIO | BufferedReader, name: str) -> Iterator[Image.Image]:
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
    return getattr(error, "strerror", None) or str(error) or type(error).__name__
