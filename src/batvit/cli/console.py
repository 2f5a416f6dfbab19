"""What commands print: results on standard output, all else on standard error."""

import os

from rich.console import Console
from rich.table import Table

stdout = Console()
stderr = Console(stderr=True)


def say(text: str) -> None:
    """Print lines as they are: not wrapped, coloured or read as markup."""
    stdout.print(text, highlight=False, soft_wrap=True, markup=False)


def note(text: str) -> None:
    """Say on standard error what was decided for the user."""
    stderr.print(text, style="dim", highlight=False, soft_wrap=True, markup=False)


def table(*columns: str) -> Table:
    """Return an empty table, plain and narrow; an unnamed column holds names, others numbers."""
    plain = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False)
    for column in columns:
        plain.add_column(column, justify="right" if column else "left", no_wrap=True)
    return plain


def silence_profiler() -> None:
    """Keep torch's profiler, which measures memory, from writing notes to standard error."""
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")
