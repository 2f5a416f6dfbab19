"""What is asked of a tuning, and what is refused before anything is done."""

import re

import pytest

from batvit.budget import macs_of
from batvit.tune.search import Goal
from batvit.tune.settings import Settings


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ({}, "give one of target_speedup, target_macs and max_drop, got none"),
        (
            {"target_speedup": 1.5, "target_macs": 0.5},
            "max_drop, got target_speedup=1.5 and target_macs=0.5",
        ),
        ({"target_speedup": 0.9}, "target_speedup=0.9: must be above 1 and below 100; 1.5 is half"),
        ({"target_speedup": 150.0}, "target_speedup=150: must be above 1 and below 100"),
        ({"target_speedup": float("nan")}, "target_speedup=nan: must be above 1"),
        ({"target_macs": 0.0}, "target_macs=0: must be above 0"),
        (
            {"target_macs": 1.2},
            "target_macs=1.2: give multiply-accumulates, such as 0.8e9, or a sh",
        ),
        ({"max_drop": 0.5}, "max_drop=0.5: is about accuracy, and needs labels; give labels=True"),
        ({"max_drop": 101.0, "labels": True}, "max_drop=101: must be 0 to 100 points of top-1"),
        ({"minutes": 0.0}, "minutes=0: must be above 0"),
        ({"minutes": float("inf")}, "minutes=inf: must be above 0 and below 1e6"),
        ({"samples": 1}, "samples must lie in [2, inf), got 1"),
        ({"held_out": 0}, "held_out must lie in [1, inf), got 0"),
        ({"trials": 0}, "trials must lie in [1, inf), got 0"),
        ({"seed": -1}, "seed must lie in [0, inf), got -1"),
        ({"batch_size": 0}, "batch_size must lie in [1, inf), got 0"),
        ({"workers": -1}, "workers must lie in [0, inf), got -1"),
    ],
)
def test_what_no_search_can_have_is_refused(values, reason):
    goals = {"target_speedup", "target_macs", "max_drop"}
    if values and not goals & set(values):
        values = values | {"target_macs": 0.5}
    with pytest.raises(ValueError, match=re.escape(reason)):
        Settings(**values)


@pytest.mark.unchecked
@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ({"target_speedup": "2"}, "target_speedup must be a number, got '2' (str)"),
        ({"target_macs": 0.5, "minutes": "2"}, "minutes must be a number, got '2' (str)"),
        ({"target_macs": 0.5, "samples": 2.0}, "samples must be an integer, got 2.0 (float)"),
    ],
)
def test_values_of_another_type_are_refused(values, reason):
    with pytest.raises(TypeError, match=re.escape(reason)):
        Settings(**values)


def test_a_goal_is_a_share_of_the_model_or_points(model):
    dense = macs_of(model, None)
    assert Settings(target_speedup=2.0).goal(model) == Goal(budget=0.5)
    assert Settings(target_macs=0.7).goal(model) == Goal(budget=0.7)
    assert Settings(target_macs=0.7 * dense).goal(model).budget == pytest.approx(0.7)
    assert Settings(max_drop=1.0, labels=True).goal(model) == Goal(max_drop=1.0)
    with pytest.raises(ValueError, match=r"target_macs=1e\+11: must be below the 0\.\d+G of the"):
        Settings(target_macs=100e9).goal(model)


def test_as_many_pictures_are_held_out_as_are_searched_on():
    assert Settings(target_macs=0.5, samples=50).held_out_samples == 50
    assert Settings(target_macs=0.5, samples=50, held_out=20).held_out_samples == 20
    assert Settings(target_speedup=2.0).timed
    assert Settings(max_drop=1.0, labels=True).timed
    assert not Settings(target_macs=0.5).timed
