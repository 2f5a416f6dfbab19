"""Files that a user names, read: regular files alone, and none larger than it can be."""

import errno
import os
import stat
from pathlib import Path
from typing import Any

LARGEST_TEXT = 2**24
"""bytes of a text file"""


def trouble_with(path: str | Path, *, largest: int | None = None) -> str | None:
    """Return why a path cannot be read as a file; None if it can.

    Whoever opens a pipe or a device may wait for ever, and what they give may have no end.

    Args:
        path: links are followed.
        largest: bytes that the file may have.
    """
    try:
        status = Path(path).stat()
    except ValueError:
        return "no such file; its name holds a NUL byte"
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ENOTDIR):
            return "no such file"
        return f"cannot be read ({error.strerror}); name another file"
    if stat.S_ISDIR(status.st_mode):
        return "no such file; it is a folder, name a file in it"
    if not stat.S_ISREG(status.st_mode):
        return "is no regular file; name another"
    if largest is not None and status.st_size > largest:
        return (
            f"is too large, {status.st_size / 2**20:,.0f} MiB where {largest / 2**20:,.0f} are "
            "allowed; name another file"
        )
    return None


def check_file(path: str | Path, *, largest: int | None = None) -> Path:
    """Refuse what is no regular file, before it is opened.

    Args:
        path: links are followed.
        largest: bytes that the file may have.

    Returns:
        The path, as a :class:`Path`.

    Raises:
        FileNotFoundError, OSError: naming the path and the reason.
    """
    trouble = trouble_with(path, largest=largest)
    if trouble is not None:
        kind = FileNotFoundError if trouble.startswith("no such file") else OSError
        raise kind(f"{path}: {trouble}")
    return Path(path)


def read_text(path: str | Path) -> str:
    """Read a text file in UTF-8, with or without a byte order mark.

    Raises:
        FileNotFoundError, OSError: as :func:`check_file`.
        UnicodeDecodeError: if it is no text.
    """
    with check_file(path, largest=LARGEST_TEXT).open("rb") as file:
        # some files of the system say that they are empty
        content = file.read(LARGEST_TEXT + 1)
    if len(content) > LARGEST_TEXT:
        raise OSError(f"{path}: is too large for a text file; name another")
    return content.decode("utf-8-sig")


def unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Make the dictionary of a JSON object, for ``object_pairs_hook``.

    Raises:
        ValueError: naming a key that stands twice, of which only one value would count.
    """
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found:
            raise ValueError(f"the key {key!r} stands twice; keep one of them")
        found[key] = value
    return found


def real_path(path: str | Path) -> Path:
    """Return a path without links; what lies beyond links in a circle stays as it is."""
    return Path(os.path.realpath(path))
