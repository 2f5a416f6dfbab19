"""One picture decoded, strictly: what cannot be read is refused by name."""

import functools
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from io import BufferedReader, BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, UnidentifiedImageError

from batvit.storage.files import first_line
from batvit.storage.reading import trouble_with

# what a file holds decides, not its suffix; without EPS, on which Pillow would run Ghostscript
FORMATS = ("BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP")

LARGEST_FILE = 2**29
"""bytes; the largest picture that Pillow decodes has fewer, even where it is not compressed"""

LARGEST_RATIO = 50
"""of the sides of a picture: models take the shorter one resized to a few hundred pixels, and then
the longer one is so many times as long"""

# tags of TIFF
BITS_PER_SAMPLE = 258
PHOTOMETRIC = 262
WHITE_IS_ZERO = 0

Transform = Callable[[Image.Image], Any]
"""what prepares a picture for a model"""


class UnreadableError(ValueError):
    """A picture cannot be read. The message names it."""


@functools.cache
def picture_suffixes() -> tuple[str, ...]:
    """Return the suffixes, in lower case, of files in the formats that are decoded, sorted."""
    suffixes = Image.registered_extensions()
    return tuple(sorted(suffix for suffix, kind in suffixes.items() if kind in FORMATS))


def open_picture(path: Path) -> Image.Image:
    """Decode the picture in a file as RGB: as timm and torchvision do, where they do it well.

    What is transparent has the colours that are stored under it. The orientation that a camera
    notes (EXIF) is not applied. Of several pictures in a file it is the first. Grey with more than
    8 bits is rescaled to 8.

    Raises:
        UnreadableError: naming the file, if it is no picture, is cut short, is larger than Pillow's
            safety limit or would be once it is resized, or has values without a defined range, such
            as fractions.
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
        return as_rgb(image)


@contextmanager
def opened(source: Path | BytesIO | BufferedReader, name: str) -> Iterator[Image.Image]:
    """Open a picture, of which the header alone is read until its pixels are asked for.

    Raises:
        UnreadableError: as :func:`open_picture`, whenever it shows within the block.
    """
    try:
        # of what is not there, the system's own words are good
        if isinstance(source, Path) and source.exists() and not source.is_dir():
            _check_file(source)
        with warnings.catch_warnings():
            # up to twice its safety limit Pillow would only warn
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(source, formats=FORMATS) as image:
                check_kind(image)
                yield image
    except Exception as error:
        # whatever a decoder stumbles over, the file is no good
        raise UnreadableError(f"{name}: cannot be read as a picture ({_reason(error)})") from error


def _check_file(path: Path) -> None:
    """Refuse a pipe, a device and a huge file, which may have no end."""
    trouble = trouble_with(path, largest=LARGEST_FILE)
    if trouble is not None:
        raise ValueError(trouble)


def check_kind(image: Image.Image) -> None:
    """Refuse a picture that no model can be given, by its header.

    Raises:
        ValueError: if it would be huge once it is resized, or its values have no defined range.
    """
    longer = max(image.size)
    shorter = min(image.size)
    if longer > LARGEST_RATIO * shorter:
        raise ValueError(
            f"it is {image.width} x {image.height} pixels and would be huge once resized; "
            f"crop it, as one side may be {LARGEST_RATIO} times as long as the other"
        )
    # Pillow has PPM with more than 8 bits as 32-bit integers, and so had PNG before its version 11
    is_scaled = image.format in ("PNG", "PPM")
    if image.mode == "F" or (image.mode == "I" and not is_scaled):
        raise ValueError(
            "its values, fractions or 32-bit integers, have no defined range; "
            "save it with 8 or 16 bits"
        )


def as_rgb(image: Image.Image) -> Image.Image:
    """Return a picture that :func:`check_kind` takes as RGB with 8 bits a colour."""
    if image.mode == "I" or image.mode.startswith("I;16"):
        image = _with_eight_bits(image)
    if image.mode == "P" and "transparency" in image.info:
        # straight to RGB, Pillow warns of a palette with transparency
        image = image.convert("RGBA")
    return image.convert("RGB")


def _with_eight_bits(image: Image.Image) -> Image.Image:
    """Rescale grey with up to 16 bits; Pillow would cut all values off at 255."""
    tags: Any = getattr(image, "tag_v2", {})
    bits = min(tags.get(BITS_PER_SAMPLE, (16,))[0], 16)
    largest = 2**bits - 1
    # a table, as numbers of more bytes would fill the memory
    grey = ((np.arange(largest + 1) * 255 + largest // 2) // largest).astype(np.uint8)
    # which Pillow heeds with 8 bits alone
    if tags.get(PHOTOMETRIC) == WHITE_IS_ZERO:
        grey = 255 - grey
    return Image.fromarray(grey[np.asarray(image).clip(0, largest)])


def _reason(error: Exception) -> str:
    if isinstance(error, UnidentifiedImageError):
        return f"it is none of {', '.join(FORMATS)}"
    # the system's own words do not repeat the path
    return getattr(error, "strerror", None) or first_line(error)
