"""Paths checked before any work, files read and written, errors told in one line."""

import errno
import json
import os
import stat
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from batvit.storage.drafts import draft_file, sweep
from batvit.storage.reading import read_text, real_path, unique_keys

LONGEST_REASON = 300
ZEROS = bytes(2**20)


# what the system says where there is no room, and what is to be done
NO_ROOM = {
    errno.ENOSPC: "the disk is full; make room there",
    errno.EDQUOT: "the quota is used up; make room there",
    errno.EFBIG: "files so large are not allowed here; raise the limit, or name another place",
}


class NoRoomError(OSError):
    """There is no room for a file, which is named."""


def write_atomic(path: str | Path, content: str | bytes) -> Path:
    """Write a file in one step: readers see the old one or the new one, never a part.

    A new file has the permissions that a plain open would give it; one that is replaced keeps its
    own. What killed processes left of this file is removed.

    Returns:
        The path, without links.

    Raises:
        OSError: if the folder does not exist or cannot be written; nothing is left behind.
    """
    path = check_writable(path).resolve()
    sweep(path.parent, path.name)
    before = path.stat() if path.exists() else None
    mode = 0o666 if before is None else stat.S_IMODE(before.st_mode)
    with no_room_named(path), draft_file(path, mode) as (draft, file):
        if before is not None:
            _keep_owner(file.fileno(), before)
        file.write(content.encode() if isinstance(content, str) else content)
        file.flush()
        # some file systems find out only now that there is no room
        os.fsync(file.fileno())
        draft.replace(path)
    return path


@contextmanager
def no_room_named(path: str | Path) -> Iterator[None]:
    """Name the file, in one line, where there is no room: the system's own error does not.

    Raises:
        NoRoomError: if the disk is full, or the like.
    """
    try:
        yield
    except NoRoomError:
        # named by who wrote it
        raise
    except OSError as error:
        if error.errno not in NO_ROOM:
            raise
        raise NoRoomError(error.errno, f"cannot write {path}: {NO_ROOM[error.errno]}") from error


def check_room(path: Path, size: int) -> None:
    """Refuse to go on where there is no room for a file; asked when a writer fails without words.

    Args:
        path: of the file.
        size: in bytes.

    Raises:
        NoRoomError: naming the file.
    """
    with no_room_named(path), draft_file(path) as (_, file):
        for _ in range(-(-size // len(ZEROS))):
            file.write(ZEROS)
        file.flush()
        os.fsync(file.fileno())


def _keep_owner(descriptor: int, before: os.stat_result) -> None:
    """Give a draft the owner and the permissions of the file that it is to replace."""
    if sys.platform == "win32":
        return
    # only root may give files away
    with suppress(PermissionError):
        os.fchown(descriptor, before.st_uid, before.st_gid)
    os.fchmod(descriptor, stat.S_IMODE(before.st_mode))


def check_writable(path: str | Path) -> Path:
    """Refuse a file to write that cannot be written, before any work is done for it.

    Returns:
        The path, as a :class:`Path`.

    Raises:
        OSError: naming the path and the reason.
    """
    path = Path(path)
    _check_name(path)
    if path.is_dir():
        raise IsADirectoryError(f"cannot write {path}: it is a folder; name a file in it")
    if path.exists() and not path.is_file():
        raise OSError(f"cannot write {path}: it is no regular file; name another")
    if not path.parent.is_dir():
        raise FileNotFoundError(
            f"cannot write {path}: the folder {path.parent} does not exist; create it first"
        )
    if not _is_writable(path.parent):
        raise PermissionError(
            f"cannot write {path}: the folder {path.parent} is not writable; "
            "change its permissions or name another"
        )
    # what is written is what a link points to
    if path.is_symlink():
        target = real_path(path)
        if target.is_symlink():
            raise OSError(f"cannot write {path}: it is a link that leads in a circle; name another")
        check_writable(target)
    return path


def _check_name(path: Path) -> None:
    """Refuse a path that no file can have."""
    try:
        path.lstat()
    except (FileNotFoundError, NotADirectoryError):
        return
    except OSError as error:
        raise OSError(f"cannot write {path}: {error.strerror}; name another") from error
    except ValueError as error:
        raise OSError(f"cannot write {path}: its name holds a NUL byte; name another") from error


def _is_writable(folder: Path) -> bool:
    """Return whether a file can be made in a folder."""
    if not os.access(folder, os.W_OK):
        return False
    try:
        # some folders of the system take no files from anybody; this one is gone at once
        tempfile.TemporaryFile(dir=folder).close()
    except OSError as error:
        # that there is no room, whoever writes says better
        return error.errno in (errno.ENOSPC, errno.EDQUOT)
    return True


def check_there(folder: Path) -> None:
    """Refuse a folder to read that is not there.

    Raises:
        FileNotFoundError, NotADirectoryError: naming it.
    """
    if folder.is_file():
        raise NotADirectoryError(
            f"{folder}: no such folder; it is a file, name the folder it is in"
        )
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder}: no such folder")


def check_folder(path: str | Path) -> Path:
    """Refuse a folder to write into, there already or to be made, before any work is done for it.

    Returns:
        The path, as a :class:`Path`.

    Raises:
        OSError: naming the path and the reason.
    """
    folder = Path(path)
    _check_name(folder)
    if folder.exists() and not folder.is_dir():
        raise NotADirectoryError(f"cannot write into {folder}: it is a file; name a folder")
    if folder.is_dir() and not _is_writable(folder):
        raise PermissionError(
            f"cannot write into {folder}: it is not writable; "
            "change its permissions or name another folder"
        )
    # it is to be made, so its parent must be writable
    if not folder.is_dir():
        check_writable(folder)
    return folder


def read_json(path: str | Path) -> Any:
    """Parse a JSON file.

    Raises:
        FileNotFoundError, OSError: if there is no such file, or it is no regular one, or huge.
        ValueError: if it is no JSON, or a key stands twice in one object.
    """
    try:
        return json.loads(read_text(path), object_pairs_hook=unique_keys)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path}: not a JSON file ({error})") from error


def first_line(error: BaseException) -> str:
    """Return what an error says, in one line of at most 300 characters: its first line.

    A first line that ends with a colon announces the next ones, and is joined with them. An error
    that says nothing is named by its class.
    """
    lines = str(error).strip().splitlines()
    if not lines:
        return type(error).__name__
    text = lines[0]
    if text.endswith(":"):
        text = " ".join(" ".join(lines).split())
    return text if len(text) <= LONGEST_REASON else f"{text[: LONGEST_REASON - 1]}…"
