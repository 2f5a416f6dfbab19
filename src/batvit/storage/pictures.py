"""How a picture is saved."""

import io
from pathlib import Path

from PIL import Image

from batvit.storage.files import write_atomic
from batvit.storage.formats import PICTURE_FORMATS, check_format


def save_picture(picture: Image.Image, path: str | Path) -> Path:
    """Write a picture, whole or not at all; the same one gives the same bytes.

    Args:
        picture: of Pillow.
        path: its suffix is .png, .jpg, .jpeg or .webp.

    Raises:
        ValueError: if the suffix is none of these.
        OSError: if the path cannot be written. Both are raised before any work.
    """
    path = Path(path)
    name = check_format(path, PICTURE_FORMATS, kind="pictures")
    content = io.BytesIO()
    if name == "JPEG":
        picture.convert("RGB").save(content, name, quality=95, subsampling=0)
    else:
        picture.save(content, name, lossless=True)
    return write_atomic(path, content.getvalue())
