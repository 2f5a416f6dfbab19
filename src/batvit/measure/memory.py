"""Batches that need more memory than there is: told before, and when torch finds out."""

import math
import os
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Generic, TypeVar

from batvit.storage.files import first_line

if TYPE_CHECKING:
    from torch import nn

Result = TypeVar("Result")

# how torch and compilers say that there is not enough memory
MEMORY_PHRASES = ("allocate memory", "out of memory", "storage size calculation overflowed")
BYTES_OF_A_NUMBER = 4


@dataclass(frozen=True)
class Fitting(Generic[Result]):
    """What was measured of the batch sizes that fit."""

    results: list[Result]
    """one for each size, in the order of the sizes"""
    failure: MemoryError | None
    """why the next size did not fit; None if all did"""


def is_memory(error: Exception) -> bool:
    """Return whether there was not enough memory.

    On a CPU torch has no class for it, and a compiler wraps the error that it meets.
    """
    # torch's own class is known by its name, as torch may not be loaded
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return True
    text = str(error).lower()
    return any(phrase in text for phrase in MEMORY_PHRASES)


def check_batch(model: "nn.Module", batch_size: int) -> None:
    """Refuse a batch of pictures that needs more memory than there is, before it is filled.

    Raises:
        MemoryError: saying how much it needs.
    """
    from batvit.data.loading import data_config

    if sys.platform == "win32":
        return
    there = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    needed = BYTES_OF_A_NUMBER * batch_size * math.prod(data_config(model)["input_size"])
    if needed > there:
        raise MemoryError(
            f"{needed / 2**30:,.0f} GiB of pictures, where {there / 2**30:,.0f} GiB are there"
        )


def each_that_fits(
    measure: Callable[[int], Result], batch_sizes: Iterable[int], model: "nn.Module"
) -> Fitting[Result]:
    """Measure every batch size, up to the first that does not fit into memory.

    Args:
        measure: takes a batch size.
        batch_sizes: in the order in which they are measured.
        model: which takes the pictures.
    """
    results = []
    for batch_size in batch_sizes:
        try:
            check_batch(model, batch_size)
            results.append(measure(batch_size))
        except (RuntimeError, MemoryError) as error:
            if not is_memory(error):
                raise
            return Fitting(results, MemoryError(f"batch {batch_size}: {first_line(error)}"))
    return Fitting(results, None)
