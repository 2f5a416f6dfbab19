"""A finished comparison: as text, as plain values, as files."""

import csv
import json
from dataclasses import replace

import pytest
from example_rows import ACCURACY, row, timing

from batvit.compare.results import Failure
from batvit.compare.rows import FIELDS, Key, RowGroup
from batvit.compare.summary import Comparison, write_tables


@pytest.fixture
def comparison(tmp_path):
    rows = []
    for at in ("macs", "time"):
        for plan, speedup in (("a", 1.9), ("c", 2.3)):
            off_target = at == "time" and plan == "c"
            measured = timing(speedup=speedup, off_target=off_target)
            rows.append(row(plan, 0.5, at, timing=measured, accuracy=ACCURACY))
    dense = replace(row("dense", timing=timing(speedup=1.0), accuracy=ACCURACY), group=None)
    failure = Failure(Key("tome", RowGroup(0.5, "time")), "too slow")
    metadata = {"model": "deit", "samples": 12}
    return Comparison(tmp_path, metadata, dense, tuple(rows), (failure,))


def test_printed_it_is_a_table_for_each_group(comparison):
    assert str(comparison).splitlines() == [
        "at 0.5 of the MACs of the dense model",
        "       top-1  difference [95 %]  same     KL  GMACs  speed  ms alone",
        "dense   80.0                  \u2013  94.0  0.100  0.600   1.00       1.0",
        "a       80.0  \u22121.0 [\u22121.5, \u22120.5]  94.0  0.100  0.600   1.90       1.0",
        "c       80.0  \u22121.0 [\u22121.5, \u22120.5]  94.0  0.100  0.600   2.30       1.0",
        "at 0.5 of the measured time of the dense model",
        "       top-1  difference [95 %]  same     KL  GMACs  speed  ms alone",
        "dense   80.0                  \u2013  94.0  0.100  0.600   1.00       1.0",
        "a       80.0  \u22121.0 [\u22121.5, \u22120.5]  94.0  0.100  0.600   1.90       1.0",
        "c*      80.0  \u22121.0 [\u22121.5, \u22120.5]  94.0  0.100  0.600   2.30       1.0",
        "* off target, not to be ranked: c takes 0.435",
        "tome at 0.5 of the measured time: too slow",
    ]


def test_plain_values_are_those_of_the_file(comparison):
    write_tables(comparison)
    values = comparison.to_dict()
    assert list(values) == ["model", "samples", "dense", "rows", "failed"]
    assert json.loads(comparison.result.read_text()) == values
    assert values["failed"] == [{"plan": "tome", "target": 0.5, "at": "time", "reason": "too slow"}]
    assert comparison.plot.read_bytes().startswith(b"\x89PNG")


def test_the_table_has_a_line_for_each_row_below_the_dense_model(comparison):
    write_tables(comparison)
    with comparison.table.open(newline="") as file:
        table = list(csv.DictReader(file))
    assert tuple(table[0]) == FIELDS
    assert [line["plan"] for line in table] == ["dense", "a", "c", "a", "c"]
    assert json.loads(table[1]["config"]) == comparison.rows[0].config.to_dict()
    assert (table[0]["config"], table[0]["target"], table[1]["tokens"]) == ("null", "", "[98, 49]")


def test_the_files_lie_in_the_folder(comparison, tmp_path):
    files = (comparison.report, comparison.table, comparison.result, comparison.plot)
    names = ("report.html", "table.csv", "result.json", "pareto.png")
    assert files == tuple(tmp_path / name for name in names)


def test_times_that_spread_too_much_are_marked(comparison):
    noisy = timing(speedup=1.9, speedup_low=1.1, speedup_high=2.6, unsteady=True)
    rows = (replace(comparison.rows[0], timing=noisy), *comparison.rows[1:])
    lines = str(replace(comparison, rows=rows)).splitlines()
    assert lines[3].split()[-2] == "1.90?"
    told = "? times spread too much to rank by (half of the rounds): a 1.10 to 2.60"
    assert lines[5] == told
    assert lines.count(told) == 1
