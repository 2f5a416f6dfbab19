"""What commands print: results on standard output, all else on standard error."""

import io
import os
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment
from rich.table import Table
from rich.text import Text

LONGEST_LINE = 1000
"""of an error, in characters"""
NOTABLE = 0.02
"""from which difference of a factor to 1 on it is coloured"""


def printable(text: str, *, keep: str = "\n") -> str:
    r"""Return a text in which what a terminal would obey, or not show, stands as Python writes it.

    Names of files, folders and runs may come from anybody: an escape becomes ``\x1b``.

    Args:
        text: to print.
        keep: characters that stay.
    """
    if text.isprintable():
        return text
    return "".join(
        character if character.isprintable() or character in keep else ascii(character)[1:-1]
        for character in text
    )


def shortened(text: str) -> str:
    """Return the beginning and the end of a text that is too long for a message."""
    if len(text) <= LONGEST_LINE:
        return text
    # what was wrong stands at the beginning, what to do at the end
    return f"{text[: LONGEST_LINE * 3 // 4]} … {text[-LONGEST_LINE // 4 :]}"


class SafeConsole(Console):
    """Prints no foreign control character, whatever it is in: a line, a table, a bar."""

    def render(
        self, renderable: RenderableType, options: ConsoleOptions | None = None
    ) -> Iterable[Segment]:
        """Give the parts of what is printed, all texts printable; rich's own controls stay."""
        for part in super().render(renderable, options):
            if part.control is None and not part.text.isprintable():
                yield part._replace(text=printable(part.text))
            else:
                yield part


# a name such as :smile: is no emoji
stdout = SafeConsole(emoji=False)
stderr = SafeConsole(stderr=True, emoji=False)


def fail(text: str) -> None:
    """Say in one line on standard error why a command ends."""
    print(shortened(printable(text, keep="")), file=sys.stderr)


def show_all_characters() -> None:
    """Have standard output and error write what their encoding lacks as an escape, not fail."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def say(text: str) -> None:
    """Print lines as they are: not wrapped, coloured or read as markup."""
    stdout.print(printable(text), highlight=False, soft_wrap=True, markup=False)


def note(text: str) -> None:
    """Say on standard error what was decided for the user."""
    stderr.print(printable(text), style="dim", highlight=False, soft_wrap=True, markup=False)


def table(*columns: str) -> Table:
    """Return an empty table, plain and narrow; an unnamed column holds names, others numbers."""
    plain = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, header_style="bold cyan")
    for column in columns:
        plain.add_column(column, justify="right" if column else "left", no_wrap=True)
    return plain


def factor(value: float, mark: str = "") -> Text:
    """Return how many times as fast something is: green if faster, red if slower, by 2 % or more.

    Args:
        value: the factor.
        mark: what stands behind it.
    """
    style = ""
    if value >= 1 + NOTABLE:
        style = "green"
    elif value <= 1 - NOTABLE:
        style = "red"
    return Text(f"{value:.2f}{mark}", style=style)


@contextmanager
def working(text: str) -> Iterator[None]:
    """Show in a terminal that a command is at work, and on what."""
    if stderr.is_terminal:
        with stderr.status(Text(printable(text))):
            yield
    else:
        yield


def silence_profiler() -> None:
    """Keep torch's profiler, which measures memory, from writing notes to standard error."""
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")
