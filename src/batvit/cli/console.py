"""What commands print: the only place with a console."""

import os

from rich.console import Console
from rich.table import Table

stdout = Console()


stderr = Console(stderr=True)


def say(text: str) -> None:
    """Print lines as they are: not wrapped, coloured or read as markup."""
    stdout.print(text, highlight=False, soft_wrap=True, markup=False)


def table(*columns: str) -> Table:
    """An empty table that is plain and narrow; an unnamed column holds names, the others numbers."""
    plain = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False)
    for column in columns:
        plain.add_column(column, justify="right" if column else "left", no_wrap=True)
    return plain


def silence_profiler() -> None:
    """Keep torch's profiler, which measures the memory, from writing notes of its own to standard error."""
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")


def note(text: str) -> None:
    """Say on standard error what was decided for the user."""
    stderr.print(text, style="dim", highlight=False, soft_wrap=True, markup=False)
