"""Rows: flat as files have them, typed inside, and read strictly."""

import json
from dataclasses import replace

import pytest
from example_rows import ACCURACY, row, timing

from batvit.compare.rows import FIELDS, Key, Row, RowGroup, is_bat


def through_json(values):
    return json.loads(json.dumps(values))


@pytest.mark.parametrize(
    "known",
    [
        row(),
        row(timing=timing()),
        row(timing=timing(peak_memory_mb=3.5, off_target=True), accuracy=ACCURACY),
        row("dense", at="time", timing=timing()),
    ],
)
def test_a_row_is_flat_in_a_file_and_reads_back(known):
    values = known.to_dict()
    assert tuple(values) == FIELDS
    assert Row.from_dict(through_json(values)) == known


def test_the_fields_are_those_of_the_files():
    assert FIELDS == (
        "plan",
        "target",
        "at",
        "config",
        "blocks",
        "tokens",
        "gmacs",
        "mac_share",
        "step_time",
        "step_time_iqr",
        "samples_per_sec",
        "speedup",
        "speedup_low",
        "speedup_high",
        "unsteady",
        "off_target",
        "realised_share",
        "peak_memory_mb",
        "latency_ms",
        "latency_iqr",
        "latency_speedup",
        "rounds",
        "top1",
        "top5",
        "difference",
        "difference_low",
        "difference_high",
        "agreement",
        "kl",
    )


def test_what_is_not_known_yet_is_none():
    values = row().to_dict()
    assert (values["config"]["keep_rate"], values["tokens"]) == (0.5, [98, 49])
    assert (values["step_time"], values["off_target"], values["top1"]) == (None, False, None)
    dense = replace(row("dense"), group=None).to_dict()
    assert (dense["target"], dense["at"], dense["config"]) == (None, None, None)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (3, "^3$"),
        ({"unknown": 1}, "^{'agreement': 94.0"),
        ({"plan": ["x"]}, r"plan = \['x'\]"),
        ({"target": 10**400}, "target = 1000"),
        ({"target": None}, "target = None"),
        ({"target": 1.0}, "target = 1.0"),
        ({"target": True}, "target = True"),
        ({"at": ["macs"]}, r"at = \['macs'\]"),
        ({"mac_share": None}, "mac_share = None"),
        ({"kl": float("nan")}, "kl = nan"),
        ({"kl": None}, "kl = None"),
        ({"speedup": None}, "speedup = None"),
        ({"tokens": ["3"]}, r"tokens = \['3'\]"),
        ({"off_target": 1}, "off_target = 1"),
        ({"config": 3}, "config = 3"),
        ({"config": None}, "config = None"),
        ({"config": {"no": 1}}, "no"),
    ],
)
def test_every_value_is_checked(change, said):
    values = row(timing=timing(), accuracy=ACCURACY).to_dict()
    values = values | change if isinstance(change, dict) else change
    with pytest.raises((TypeError, ValueError), match=said):
        Row.from_dict(values)


def test_keys_and_groups_say_what_they_are():
    assert str(RowGroup(0.65, "time")) == "0.65 of the measured time"
    assert str(Key("tome", RowGroup(0.5, "macs"))) == "tome at 0.5 of the MACs"
    assert row().key == Key("bat", RowGroup(0.5, "macs"))


def test_bat_is_told_from_the_others():
    assert [is_bat(plan) for plan in ("bat", "bat_gradual", "batch", "tome")] == [
        True,
        True,
        False,
        False,
    ]
