"""Drafts: what is being written lies hidden beside its place until it is whole.

The process that writes a draft holds a lock on it, which the system takes away when that process
ends in whatever way. So a draft without a lock is of the dead, and is removed.
"""

import os
import secrets
import shutil
import stat
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

if sys.platform != "win32":
    import fcntl

SUFFIX = ".batvit-draft"
# of the name of a file, so that the name of its draft is not too long for a file system
LONGEST_NAME = 200


@contextmanager
def draft_file(path: Path, mode: int = 0o666) -> Iterator[tuple[Path, BinaryIO]]:
    """Open a draft of a file, to be renamed in the block once it is whole; else it is removed.

    Args:
        path: of the file.
        mode: permissions of the draft, less those that the process's umask takes away.
    """
    while True:
        draft = _name(path)
        descriptor = os.open(draft, os.O_CREAT | os.O_EXCL | os.O_RDWR, mode)
        if _held(draft, descriptor):
            break
        os.close(descriptor)
    with os.fdopen(descriptor, "wb") as file:
        try:
            yield draft, file
        finally:
            draft.unlink(missing_ok=True)


@contextmanager
def draft_folder(path: Path) -> Iterator[Path]:
    """Make a folder for the draft of a file and of what belongs beside it; removed after the block.

    Args:
        path: of the file.
    """
    while True:
        draft = _name(path)
        draft.mkdir(mode=0o700)
        descriptor = _opened(draft)
        if descriptor is None or _held(draft, descriptor):
            break
        os.close(descriptor)
    try:
        yield draft
    finally:
        shutil.rmtree(draft, ignore_errors=True)
        if descriptor is not None:
            os.close(descriptor)


def publish(draft: Path, path: Path) -> None:
    """Put the files of a draft folder in their places; the named one last: then all are there.

    Args:
        draft: from :func:`draft_folder`; it keeps its files, if the file system has hard links.
        path: of the file.

    Raises:
        FileExistsError: if one is there already; then none is put there.
    """
    beside = [file for file in sorted(draft.iterdir()) if file.name != path.name]
    placed: list[Path] = []
    try:
        for file in (*beside, draft / path.name):
            target = path.with_name(file.name)
            _place(file, target)
            placed.append(target)
    except BaseException:
        for target in placed:
            target.unlink()
        raise


def sweep(folder: Path, name: str | None = None) -> None:
    """Remove what killed processes left in a folder; never a draft that is still being written.

    Args:
        folder: where drafts may lie.
        name: of the file that they are of; of any by default.
    """
    for draft in list(folder.glob(f".*{SUFFIX}")):
        if name is None or _file_name(draft) == _short(name):
            _remove_if_dead(draft)


def _name(path: Path) -> Path:
    return path.with_name(f".{_short(path.name)}.{secrets.token_hex(4)}{SUFFIX}")


def _short(name: str) -> str:
    return os.fsdecode(os.fsencode(name)[:LONGEST_NAME])


def _file_name(draft: Path) -> str:
    """Return the name of the file that a draft is of."""
    return draft.name.removesuffix(SUFFIX).rpartition(".")[0].removeprefix(".")


def _opened(draft: Path) -> int | None:
    """Open a folder, so that it can be locked; None where that cannot be."""
    if sys.platform == "win32":
        return None
    return os.open(draft, os.O_RDONLY)


def _held(draft: Path, descriptor: int) -> bool:
    """Lock a draft that was made just now; false if it was swept before the lock was there."""
    if sys.platform != "win32":
        # without locks, as on some network drives, nothing is ever swept
        with suppress(OSError):
            fcntl.flock(descriptor, fcntl.LOCK_EX)
    try:
        return os.path.samestat(draft.stat(), os.fstat(descriptor))
    except FileNotFoundError:
        return False


def _remove_if_dead(draft: Path) -> None:
    if sys.platform == "win32":
        return
    try:
        kind = draft.lstat().st_mode
        if not stat.S_ISREG(kind) and not stat.S_ISDIR(kind):
            return
        access = os.O_RDONLY if stat.S_ISDIR(kind) else os.O_RDWR
        descriptor = os.open(draft, access | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError:
        # gone by now, or somebody else's
        return
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if stat.S_ISDIR(kind):
            _take_back(draft)
            shutil.rmtree(draft)
        else:
            draft.unlink()
    except OSError:
        # somebody writes it, or it is not ours to remove
        return
    finally:
        os.close(descriptor)


def _take_back(draft: Path) -> None:
    """Remove the files that a killed process put in their places without the named one."""
    placed = []
    for file in draft.iterdir():
        target = draft.with_name(file.name)
        if target.exists() and target.samefile(file):
            placed.append(target)
    if all(_short(target.name) != _file_name(draft) for target in placed):
        for target in placed:
            target.unlink()


def _place(file: Path, target: Path) -> None:
    """Put a file in its place, where there is none."""
    try:
        target.hardlink_to(file)
    except FileExistsError:
        raise FileExistsError(f"{target} exists; remove it or name another file") from None
    except OSError:
        # a file system without hard links
        if target.exists():
            raise FileExistsError(f"{target} exists; remove it or name another file") from None
        file.replace(target)
