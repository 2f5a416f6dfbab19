"""Numbers as tables show them."""

import pytest

from batvit.compare.columns import COLUMNS, DIFFERENCE, UNKNOWN, cell, finite, percent

STEP_TIME = next(column for column in COLUMNS if column.name == "step_time")


@pytest.mark.parametrize("value", [None, "3", float("nan"), float("inf"), 10**400, [1]])
def test_what_is_no_finite_number_is_none(value):
    assert finite(value) is None


def test_a_cell_has_its_interval_or_spread():
    row = {"plan": "bat", "difference": -1.04, "difference_low": -2.0, "difference_high": 0.5}
    assert cell(row, DIFFERENCE) == "\u22121.0 [\u22122.0, +0.5]"
    assert cell(row | {"difference_low": None}, DIFFERENCE) == "\u22121.0"
    assert cell(row | {"plan": "dense"}, DIFFERENCE) == UNKNOWN
    assert (
        cell({"plan": "bat", "step_time": 10.0, "step_time_iqr": 0.25}, STEP_TIME) == "10.0 (0.2)"
    )
    assert cell({"plan": "bat", "step_time": 10.0}, STEP_TIME) == "10.0"
    assert cell({"plan": "bat"}, STEP_TIME) == UNKNOWN


def test_a_target_is_in_percent():
    assert percent(0.65) == "65 %"
    assert percent("half") == "half"
