"""What is printed: lines as they are, and narrow tables."""

import io
import re

import pytest
from rich.panel import Panel
from rich.progress import Progress
from rich.text import Text

from batvit.cli import console


def test_lines_are_printed_as_they_are(capsys):
    long = "wrote groups[red].png " + "x" * 200
    console.say(long)
    console.note("decided [bold]")
    out, err = capsys.readouterr()
    assert out == f"{long}\n"
    assert err == "decided [bold]\n"


def test_a_table_has_names_on_the_left_and_numbers_on_the_right(capsys):
    table = console.table("", "G MACs")
    table.add_row("dense", "4.6")
    console.stdout.print(table)
    lines = capsys.readouterr().out.splitlines()
    assert [line.rstrip() for line in lines] == ["       G MACs", "dense     4.6"]


# what a terminal would obey

CLEARS = "\x1b[2J"
EVIL = f"a{CLEARS}\x07\x9b31m\u202eb\udcff.png"
SHOWN = r"a\x1b[2J\x07\x9b31m\u202eb\udcff.png"


def test_foreign_characters_are_escaped_in_lines(capsys):
    console.say(EVIL)
    console.note(f"first\n{EVIL}")
    console.fail(f"two\nlines {EVIL}")
    out, err = capsys.readouterr()
    assert out == f"{SHOWN}\n"
    assert err == f"first\n{SHOWN}\ntwo\\nlines {SHOWN}\n"


def test_foreign_characters_are_escaped_in_tables_and_bars():
    for print_it in (
        lambda it: it.print(with_row(EVIL)),
        lambda it: it.print(Text(EVIL)),
        lambda it: it.print(Panel(EVIL)),
    ):
        safe = console.SafeConsole(file=io.StringIO(), force_terminal=True, width=200)
        print_it(safe)
        said = safe.file.getvalue()
        assert CLEARS not in said
        assert not {"\x07", "\x9b", "\u202e", "\udcff"} & set(said)
        assert r"a\x1b[2J" in said


def with_row(name):
    table = console.table("", "G MACs")
    table.add_row(name, "4.6")
    return table


def test_the_controls_of_a_bar_are_not_escaped():
    safe = console.SafeConsole(file=io.StringIO(), force_terminal=True, width=80)
    with Progress(console=safe) as bar:
        bar.add_task("x", total=1)
    assert "\x1b[" in safe.file.getvalue()
    assert r"\x1b" not in safe.file.getvalue()


def test_words_of_other_scripts_and_signs_are_left_as_they_are(capsys):
    text = "Größe … 猫 :smile: é 100 %"
    console.say(text)
    assert capsys.readouterr().out == f"{text}\n"


def test_an_error_of_a_megabyte_keeps_its_beginning_and_its_end(capsys):
    console.fail(f"argument --device: {'x' * 2**20}; give another")
    said = capsys.readouterr().err
    assert len(said) < console.LONGEST_LINE + 10
    assert said.startswith("argument --device: xxx")
    assert said.endswith("; give another\n")


def test_a_stream_that_lacks_a_character_does_not_fail(monkeypatch):
    stream = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    monkeypatch.setattr("sys.stdout", stream)
    console.show_all_characters()
    console.say("… done")
    stream.flush()
    assert stream.buffer.getvalue() == b"\\u2026 done\n"


# colours, and signs of life


@pytest.mark.parametrize(
    ("value", "style"),
    [(1.3, "green"), (1.02, "green"), (1.01, ""), (1.0, ""), (0.99, ""), (0.98, "red")],
)
def test_a_factor_is_green_where_it_is_faster_and_red_where_slower(value, style):
    found = console.factor(value, "?")
    assert (found.plain, found.style) == (f"{value:.2f}?", style)


def terminal(monkeypatch, *, colours):
    shown = io.StringIO()
    fake = console.SafeConsole(
        file=shown, force_terminal=colours, color_system="standard" if colours else None, width=80
    )
    monkeypatch.setattr(console, "stderr", fake)
    return shown, fake


def test_a_table_is_coloured_only_where_there_are_colours(monkeypatch):
    table = console.table("", "speed-up")
    table.add_row("reduced", console.factor(1.5))
    shown, fake = terminal(monkeypatch, colours=True)
    fake.print(table)
    assert re.search(r"\x1b\[32m *1\.50\x1b\[0m", shown.getvalue())
    shown, fake = terminal(monkeypatch, colours=False)
    fake.print(table)
    assert "\x1b" not in shown.getvalue()
    assert "1.50" in shown.getvalue()


@pytest.mark.parametrize("name", ["a[/b].png", "[bold", "a\x1b[2J.png"])
def test_a_name_at_work_is_no_markup(monkeypatch, name):
    shown, _ = terminal(monkeypatch, colours=True)
    with console.working(f"looking at {name}"):
        pass
    assert f"looking at {console.printable(name)}" in shown.getvalue()


def test_a_command_at_work_shows_it_in_a_terminal_alone(monkeypatch):
    shown, _ = terminal(monkeypatch, colours=True)
    with console.working("looking at a.png"):
        pass
    assert "looking at a.png" in shown.getvalue()
    shown, _ = terminal(monkeypatch, colours=False)
    with console.working("looking at a.png"):
        pass
    assert shown.getvalue() == ""
