"""The numbers that options take, and the limits that keep a slip of the finger from taking all."""

import argparse
import os
from collections.abc import Callable
from typing import Any

MAC_UNITS = {"G": 1e9, "M": 1e6}
MOST_MACS = 1e18

MOST = 1_000_000_000
"""of numbers that no more is known of"""
MOST_DIGITS = 20
MOST_CLASSES = 100_000
MOST_BATCH = 10**18
"""what fits into memory, the machine knows"""
MOST_ROUNDS = 10_000
MOST_PIXELS = 4096 * 4096
"""of an image, as a model has a token for each of its patches"""
MOST_THREADS = max(64, os.cpu_count() or 1)
"""a system that is asked for many more crashes; the same for processes"""
MOST_SEED = 2**32 - 1


def at_least(least: int, most: int = MOST) -> Callable[[str], int]:
    """Return the argparse type of an integer of ``least`` or more, and of ``most`` or less."""

    def number(text: str) -> int:
        digits = text.strip().removeprefix("+")
        if not digits.isdecimal():
            raise argparse.ArgumentTypeError(
                f"expected an integer of {least} or more, got {text!r}"
            )
        # Python reads no more than some thousand digits
        value = int(digits) if len(digits) <= MOST_DIGITS else most + 1
        if value > most:
            raise argparse.ArgumentTypeError(f"expected an integer of {most} or less, got {text!r}")
        if value < least:
            raise argparse.ArgumentTypeError(
                f"expected an integer of {least} or more, got {text!r}"
            )
        return value

    return number


def macs(text: str) -> float:
    """Read a number of MACs such as 0.8G, or a share of the dense model's such as 0.5."""
    unit = MAC_UNITS.get(text[-1:].upper())
    number = text if unit is None else text[:-1]
    try:
        value = float(number) * (unit or 1.0)
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"expected MACs such as 0.8G or 620M, or a share such as 0.5, got {text!r}"
        ) from None
    if not value > 0:
        raise argparse.ArgumentTypeError(f"expected more than 0, got {text!r}")
    if value > MOST_MACS:
        raise argparse.ArgumentTypeError(f"no model has so many MACs, got {text!r}")
    if 1 <= value < 1e6:
        raise argparse.ArgumentTypeError(f"{value:g} MACs; did you mean {number}G?")
    return value


def numbers(text: str) -> Any:
    """Read one number, or a tuple of several with commas.

    Integers and fractions are told apart, as counts and shares are.
    """
    values = several(text)
    return values[0] if len(values) == 1 else values


def several(text: str) -> tuple[int | float, ...]:
    """Read numbers with commas between them, also a single one, as a tuple."""
    try:
        return tuple(_number(part.strip()) for part in text.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"expected a number, or several with commas, got {text!r}"
        ) from None


def _number(text: str) -> int | float:
    if text.lstrip("+-").isdigit():
        return int(text)
    return float(text)
