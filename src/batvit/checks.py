"""Validators of single values, and of what is installed: each says what was got and what to do."""

import importlib
import math
from collections.abc import Sequence
from typing import Any

EXTRAS = {
    "accelerate": "train",
    "datasets": "data",
    "matplotlib": "plot",
    "nncf": "export",
    "onnx": "export",
    "onnxruntime": "export",
    "onnxscript": "export",
    "openvino": "export",
    "optuna": "tune",
    "scipy": "tune",
    "shtab": "shell",
    "webdataset": "data",
}
"""the packages that only some tasks need, and the extra that brings each"""


PRECISIONS = {"fp32": "float32", "bf16": "bfloat16", "fp16": "float16"}
"""what users call the types of weights, and what torch does"""


class MissingPackageError(ImportError, ValueError):
    """A package that a task needs is not installed; the message says how to install it."""


def installed(name: str) -> Any:
    """Import a module of a package that only some tasks need, or one of ours that imports it.

    Raises:
        MissingPackageError: naming what to install.

    >>> installed("math").sqrt(4.0)
    2.0
    """
    try:
        return importlib.import_module(name)
    except ImportError as error:
        known = explained(error)
        if known is error:
            raise
        raise known from error


def explained(error: ImportError) -> ImportError:
    """Return an error that says what to install; the same one if that is not known."""
    package = (error.name or "").partition(".")[0]
    if package not in EXTRAS or isinstance(error, MissingPackageError):
        return error
    return MissingPackageError(
        f"this needs the package {package}: pip install {package}, or batvit with its extra "
        f"[{EXTRAS[package]}] ({error})",
        name=error.name,
    )


def check_number(name: str, value: Any, *, kind: type = float, remedy: str = "") -> None:
    """Refuse what is no number of a kind; True and False are none.

    Args:
        name: of the value.
        value: as it was given.
        kind: ``int``, or ``float``, which takes integers too.
        remedy: what to do, appended to the message.

    Raises:
        TypeError: if it is no such number.
    """
    if kind is int:
        expected = "an integer"
        fits = isinstance(value, int)
    else:
        expected = "a number"
        fits = isinstance(value, int | float)
    if isinstance(value, bool) or not fits:
        raise TypeError(
            f"{name} must be {expected}, got {value!r} ({type(value).__name__}){_after(remedy)}"
        )


def check_interval(
    name: str, value: Any, interval: str, *, kind: type = float, remedy: str = ""
) -> None:
    """Refuse a number outside of an interval.

    Args:
        name: of the value.
        value: as it was given.
        interval: such as ``"(0, 1]"``; ``inf`` is a limit like any other.
        kind: ``int``, or ``float``, which takes integers too.
        remedy: what to do, appended to the message.

    Raises:
        TypeError: if it is no number of that kind.
        ValueError: if it does not lie in the interval.
    """
    check_number(name, value, kind=kind, remedy=remedy)
    low, high = (float(limit) for limit in interval[1:-1].split(","))
    # written so that NaN is outside
    above = value > low or (value == low and interval[0] == "[")
    below = value < high or (value == high and interval[-1] == "]")
    if not (above and below):
        raise ValueError(f"{name} must lie in {interval}, got {value}{_after(remedy)}")


def check_integers(name: str, values: Any, *, least: int, remedy: str) -> None:
    """Refuse what is no tuple of integers, one a site.

    Raises:
        TypeError: if it is no tuple, empty, or holds something else.
        ValueError: if an integer is below ``least``.
    """
    if not isinstance(values, tuple) or not values:
        raise TypeError(f"{name} must be a tuple of integers, one a site, got {values!r}")
    for value in values:
        if isinstance(value, bool) or not isinstance(value, int):
            raise TypeError(f"{name} must hold integers, got {value!r} ({type(value).__name__})")
        if value < least:
            raise ValueError(f"{name} must be {least} or more, got {value}{_after(remedy)}")


def check_share_or_count(name: str, value: Any, *, largest_share: float) -> None:
    """Refuse what is neither a count (int) from 0 up nor a share (float) up to ``largest_share``.

    Raises:
        TypeError: if it is no number.
        ValueError: if it is out of range.
    """
    check_number(name, value)
    # written so that NaN is outside; an integer may be too large for a float
    if not 0 <= value < math.inf:
        raise ValueError(
            f"{name} must be a count from 0 up (int) or a share in 0.0 .. {largest_share} (float), "
            f"got {value}"
        )
    if isinstance(value, float) and value > largest_share:
        raise ValueError(
            f"{name} as a share must lie in 0.0 .. {largest_share}, got {value}; a count is an int"
        )


def check_choice(name: str, value: Any, allowed: Sequence[str], *, remedy: str = "") -> None:
    """Refuse what is none of the allowed names.

    Raises:
        ValueError: naming them.
    """
    if value not in allowed:
        raise ValueError(
            f"{name} must be one of {', '.join(allowed)}, got {value!r}{_after(remedy)}"
        )


def check_switch(name: str, value: Any) -> None:
    """Refuse what is neither True nor False.

    Raises:
        TypeError: naming the value.
    """
    if not isinstance(value, bool):
        raise TypeError(f"{name} must be True or False, got {value!r}")


def _after(remedy: str) -> str:
    return f"; {remedy}" if remedy else ""
