"""Rows as CSV, and as plain text."""

import csv
import io

from rich.console import Console

from batvit.cli import console
from batvit.measure.tables import as_csv, as_text


def test_rows_become_a_table_that_reads_back():
    rows = [
        {"batch_size": 1, "mode": "eager", "compile_mode": None},
        {"batch_size": 2, "mode": "a,b", "compile_mode": "x"},
    ]
    text = as_csv(rows)
    assert text.splitlines()[0] == "batch_size,mode,compile_mode"
    read = list(csv.DictReader(io.StringIO(text)))
    assert read == [
        {name: "" if value is None else str(value) for name, value in row.items()} for row in rows
    ]


def test_text_is_aligned_as_the_command_line_aligns_tables():
    head = ("", "top-1", "difference [95 %]")
    rows = [("dense", "80.1", ""), ("bat_gradual*", "9.2", "-1.0 [-2.0, +0.1]")]
    table = console.table(*head)
    for row in rows:
        table.add_row(*row)
    shown = io.StringIO()
    Console(file=shown, width=100).print(table)
    lines = [line.rstrip() for line in shown.getvalue().splitlines()]
    assert as_text(head, rows).splitlines() == lines


def test_a_table_without_rows_is_its_head():
    assert as_text(("", "a", "b"), []) == "  a  b"
