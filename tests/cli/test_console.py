"""What is printed: lines as they are, and narrow tables."""

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
