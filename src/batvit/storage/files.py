"""Reading what others wrote, and writing whole files or none."""

import errno
import json
import os
import tempfile
from pathlib import Path
from typing import Any


def write_atomic(path: str | Path, content: str | bytes) -> Path:
    """Write a file in one step: readers see the old one or the new one, never a part.

    Raises:
        OSError: if the folder does not exist or cannot be written; nothing is left behind.
    """
    path = check_writable(path).resolve()
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content.encode() if isinstance(content, str) else content)
        # mkstemp makes files private; give this one what a plain open would
        umask = os.umask(0)
        os.umask(umask)
        Path(temporary).chmod(0o666 & ~umask)
        Path(temporary).replace(path)
    except BaseException as error:
        Path(temporary).unlink()
        if isinstance(error, OSError) and error.errno == errno.ENOSPC:
            # the system's own does not name the file
            raise OSError(
                errno.ENOSPC, f"cannot write {path}: the disk is full; make room there"
            ) from error
        raise
    return path


def check_writable(path: str | Path) -> Path:
    """Refuse an output path before any work is done for it.

    Raises:
        OSError: naming the path and the reason.
    """
    path = Path(path)
    if path.is_dir():
        raise IsADirectoryError(f"cannot write {path}: it is a folder; name a file in it")
    if path.exists() and not path.is_file():
        raise OSError(f"cannot write {path}: it is no regular file; name another")
    if not path.parent.is_dir():
        raise FileNotFoundError(
            f"cannot write {path}: the folder {path.parent} does not exist; create it first"
        )
    if not os.access(path.parent, os.W_OK):
        raise PermissionError(
            f"cannot write {path}: the folder {path.parent} is not writable; change its permissions or name another"
        )
    if path.is_symlink():
        # what is written is what it points to
        check_writable(path.resolve())
    return path


def check_there(folder: Path) -> None:
    """Refuse a folder to read that is not there.

    Raises:
        FileNotFoundError: naming it.
    """
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder}: no such folder")


def check_folder(path: str | Path) -> Path:
    """Refuse an output folder, there already or to be made, before any work is done for it.

    Raises:
        OSError: naming the path and the reason.
    """
    folder = Path(path)
    if folder.exists() and not folder.is_dir():
        raise NotADirectoryError(f"cannot write into {folder}: it is a file; name a folder")
    if folder.is_dir() and not os.access(folder, os.W_OK):
        raise PermissionError(
            f"cannot write into {folder}: it is not writable; change its permissions or name another folder"
        )
    if not folder.is_dir():
        check_writable(folder)
    return folder


def read_json(path: str | Path) -> Any:
    """Parse a JSON file.

    Raises:
        FileNotFoundError, ValueError: naming the file.
    """
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise FileNotFoundError(f"{path}: no such file") from None
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path}: not a JSON file ({error})") from error


def first_line(error: BaseException) -> str:
    """What an error says first, or its class if it says nothing."""
    return next(iter(str(error).strip().splitlines()), type(error).__name__)
