"""Failures of single plans: each is kept with its reason, and the others go on."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TypeVar

Key = TypeVar("Key")


@contextmanager
def collect_errors(errors: dict[Key, Exception], key: Key) -> Iterator[None]:
    """Keep what one of many fails with, so that the others go on."""
    try:
        yield
    except Exception as error:  # noqa: BLE001 - a plan is anybody's, and may fail in any way
        # its traceback would hold what was computed
        errors[key] = error.with_traceback(None)


def reason(error: Exception) -> str:
    """Return in one line what an error says, with its class where the text alone makes no sense."""
    text = " ".join(str(error).split())
    if isinstance(error, ValueError | RuntimeError) and text:
        return text
    # such as a KeyError, which says the key alone
    name = type(error).__name__
    return f"{name}: {text}" if text else name
