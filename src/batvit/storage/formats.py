"""The suffixes of figures and pictures; commands check them before they import what draws."""

from collections.abc import Mapping
from pathlib import Path

from batvit.storage.files import check_writable

FIGURE_FORMATS = {".png": "png", ".svg": "svg", ".pdf": "pdf"}
"""the suffix of a figure, and matplotlib's name of the format"""

PICTURE_FORMATS = {".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG", ".webp": "WEBP"}
"""the suffix of a picture, and Pillow's name of the format"""


def check_format(path: Path, formats: Mapping[str, str], *, kind: str) -> str:
    """Return the name of the format that the suffix of a path says.

    Args:
        path: to be written.
        formats: ``FIGURE_FORMATS`` or ``PICTURE_FORMATS``.
        kind: what is written, as the message says it.

    Raises:
        ValueError: if the suffix is none of theirs.
        OSError: if the path cannot be written.
    """
    suffix = path.suffix.lower()
    if suffix not in formats:
        raise ValueError(
            f"cannot save {path}: {kind} are {', '.join(formats)}, got {path.suffix!r}; "
            "change the suffix"
        )
    check_writable(path)
    return formats[suffix]
