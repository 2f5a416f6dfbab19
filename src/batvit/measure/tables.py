"""Tables: rows as CSV for programs, and as plain text for people."""

import csv
import io
from collections.abc import Mapping, Sequence
from typing import Any

GAP = "  "


def as_csv(rows: Sequence[Mapping[str, Any]]) -> str:
    """Write flat rows as CSV with a head; None becomes an empty cell.

    Args:
        rows: at least one; all have the keys of the first.
    """
    text = io.StringIO()
    table = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
    table.writeheader()
    table.writerows(rows)
    return text.getvalue()


def as_text(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Align cells in columns, without lines between them and without a newline at the end.

    Args:
        head: the names of the columns. A column without a name holds names and is aligned left, all
            others right.
        rows: as many cells in each as there are columns.

    >>> print(as_text(("", "top-1"), [("dense", "80.1"), ("bat", "9.2")]))
           top-1
    dense   80.1
    bat      9.2
    """
    lines = [head, *rows]
    widths = []
    for column in zip(*lines, strict=True):
        widths.append(max(len(cell) for cell in column))
    text = []
    for line in lines:
        cells = []
        for name, cell, width in zip(head, line, widths, strict=True):
            cells.append(cell.rjust(width) if name else cell.ljust(width))
        text.append(GAP.join(cells).rstrip())
    return "\n".join(text)
