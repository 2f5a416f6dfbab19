"""A folder that one run writes into: claimed, and gone on with only as it was begun."""

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout


def check_new(folder: Path, files: Iterable[str], *, what: str, resume: bool) -> None:
    """Refuse a folder that holds a run already, unless it is to be gone on with.

    Args:
        folder: of the run; it need not be there.
        files: names by which a run is known.
        what: it is, for the message: "a comparison".
        resume: whether to go on with it.

    Raises:
        FileExistsError: naming the first such file.
    """
    if resume:
        return
    for name in files:
        if (folder / name).exists():
            raise FileExistsError(
                f"{folder}: already holds {what} ({name}); go on with it by resume=True, or name another folder"
            )


def check_same(folder: str | Path, before: Any, now: Mapping[str, Any]) -> None:
    """Refuse to go on in a folder with anything else than was begun there.

    Args:
        folder: of the run.
        before: what was saved there; anything but a dictionary counts as an empty one.
        now: what must be the same, by name.

    Raises:
        ValueError: naming the first difference.
    """
    begun = before if isinstance(before, dict) else {}
    for name, value in now.items():
        if begun.get(name) != value:
            raise ValueError(
                f"{folder}: begun with {name} = {begun.get(name)}, and cannot go on with {value}; "
                "give what it was begun with, or name another folder"
            )


def digest(value: Any) -> str:
    """Return a short text that is another one for every other plain value (SHA-256, hexadecimal)."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()


@contextmanager
def claimed(folder: Path | None) -> Iterator[None]:
    """Let no second run write into a folder while the block runs.

    Args:
        folder: made if it is not there; None claims nothing, as where the first of several processes claims it for all.

    Raises:
        FileExistsError: if another run does.
    """
    if folder is None:
        yield
        return
    folder.mkdir(exist_ok=True)
    try:
        held = FileLock(folder / ".lock").acquire(timeout=0)
    except Timeout:
        raise FileExistsError(
            f"{folder}: another run is writing into it; wait for it, or name another folder"
        ) from None
    with held:
        yield
