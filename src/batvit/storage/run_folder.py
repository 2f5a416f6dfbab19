"""A folder that one run writes into: new, claimed, and resumed only as the run was begun."""

import hashlib
import json
from collections.abc import Container, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from batvit.storage.drafts import sweep


def check_new(folder: Path, files: Iterable[str], *, what: str, resume: bool) -> None:
    """Refuse a folder that holds a run already, unless that run is to be resumed.

    Args:
        folder: of the run; it need not be there.
        files: names by which a run is known.
        what: the kind of run, for the message: "a comparison".
        resume: whether to go on with it.

    Raises:
        FileExistsError: naming the first such file.
    """
    if resume:
        return
    for name in files:
        if (folder / name).exists():
            raise FileExistsError(
                f"{folder}: already holds {what} ({name}); go on with it by resume=True, "
                "or name another folder"
            )


def check_same(
    folder: str | Path,
    before: Any,
    now: Mapping[str, Any],
    *,
    ignore: Container[str] = (),
    defaults: Mapping[str, Mapping[str, Any]] | None = None,
) -> None:
    """Refuse to go on in a folder with anything else than was begun there.

    Values are compared as JSON has them, so a tuple equals a list. A dictionary is compared entry
    by entry, and so is a list; the message names the entry: ``train.lr``, ``class_names[0]``.

    Args:
        folder: of the run, for the message.
        before: what was saved there; anything but a dictionary counts as an empty one.
        now: the values that must be the same, by name. Other names in ``before`` do not matter.
        ignore: names of entries that may differ, such as ``train.workers``.
        defaults: for the name of a dictionary, the entries that ``before`` lacks because an earlier
            version did not know them.

    Raises:
        ValueError: naming the first difference.
    """
    wanted = _as_json(now)
    saved = _as_json(before) if isinstance(before, dict) else {}
    begun = {name: saved[name] for name in wanted if name in saved}
    for name, values in (defaults or {}).items():
        begun[name] = _filled(begun.get(name), values, wanted.get(name))
    old = _entries(begun)
    new = _entries(wanted)
    for name in new | old:
        if old.get(name) != new.get(name) and name not in ignore:
            raise ValueError(
                f"{folder}: begun with {name} = {old.get(name)}, and cannot go on with "
                f"{new.get(name)}; give what it was begun with, or name another folder"
            )


def _filled(before: Any, defaults: Mapping[str, Any], now: Any) -> Any:
    """Return a dictionary that was saved, with the default of each entry that it lacks now."""
    if not isinstance(before, dict) or not isinstance(now, dict):
        return before
    known = {name: value for name, value in defaults.items() if name in now}
    return _as_json(known) | before


def _as_json(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return values as they are when they were written and read: lists for tuples."""
    read: dict[str, Any] = json.loads(json.dumps(dict(values)))
    return read


def _entries(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the entries of dictionaries and lists under names of their own, one level deep."""
    entries: dict[str, Any] = {}
    for name, value in values.items():
        if isinstance(value, dict) and value:
            for key, inner in value.items():
                entries[f"{name}.{key}"] = inner
        elif isinstance(value, list) and value:
            for i, inner in enumerate(value):
                entries[f"{name}[{i}]"] = inner
        else:
            entries[name] = value
    return entries


def digest(value: Any) -> str:
    """Return a short text that is another one for every other plain value (SHA-256)."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()


@contextmanager
def claimed(folder: Path | None) -> Iterator[None]:
    """Let no second run write into a folder while the block runs.

    What killed runs left half-written in the folder is removed.

    Args:
        folder: made if it is not there. None claims nothing, for all processes but the first of
            several, which claims the folder for all.

    Raises:
        FileExistsError: if another run does.
    """
    if folder is None:
        yield
        return
    folder.mkdir(exist_ok=True)
    try:
        lock = FileLock(folder / ".lock").acquire(timeout=0)
    except Timeout:
        raise FileExistsError(
            f"{folder}: another run is writing into it; wait for it, or name another folder"
        ) from None
    with lock:
        sweep(folder)
        yield
