"""The best of a search, measured: corrected times, who wins, and the preset beside it."""

import itertools
from dataclasses import replace

import pytest

from batvit.backbones.registry import anatomy_of
from batvit.budget import OutOfReachError
from batvit.config import BATConfig
from batvit.measure.clock import Quartiles
from batvit.tune.finalists import (
    Measured,
    Measurement,
    best_finalist,
    goal_sentence,
    measure_within,
    preset_at_same,
    preset_may_win,
)
from batvit.tune.search import BEGIN, Goal
from batvit.tune.trials import leaders

BUDGET = 0.75


def measured(share, macs=50):
    """A measurement in which that share of the time is taken."""
    return Measurement(speedup=1 / share, macs=macs, dense_macs=100)


@pytest.fixture
def searched(search, stub):
    """A search that came to an end."""
    stub()
    found = search(Goal(budget=BUDGET))
    found.run(trials=10)
    return found


@pytest.mark.parametrize(("off", "times"), [(1.01, 1), (1.1, 2), (0.9, 2)])
def test_a_time_that_is_missed_is_corrected_by_what_was_measured(deep, cost_of_deep, off, times):
    def measure(config):
        return measured(off * cost_of_deep(config))

    tried = measure_within(BEGIN[0], BUDGET, cost_of_deep, anatomy_of(deep), measure)
    assert len(tried) <= times + 1
    assert tried[0].error == pytest.approx(1 / off - 1)
    if times > 1:
        assert abs(tried[-1].error) < 1e-6
        assert (tried[-1].config.tokens[0] < tried[0].config.tokens[0]) == (off > 1)
        assert abs(tried[-1].time_share - BUDGET) < abs(tried[0].time_share - BUDGET)


def test_a_time_is_corrected_twice_at_most(deep, cost_of_deep):
    noise = itertools.cycle((1.2, 0.8))

    def measure(config):
        return measured(next(noise) * BUDGET)

    tried = measure_within(BEGIN[0], BUDGET, cost_of_deep, anatomy_of(deep), measure)
    assert len(tried) == 3


def test_what_is_found_is_the_best_once_it_was_measured(searched):
    """One that was promised more tokens than it has time for must win with those that it has."""
    promised, *others = leaders(searched.study)[:3]

    def measure(config):
        slower = 1.3 if config.blocks == promised.config.blocks else 1.0
        return measured(slower * searched.cost(config))

    best = best_finalist(searched, measure, timed=True)
    assert best.trial == others[0]
    assert best.final.config == best.first.config
    assert best.final.time_share <= BUDGET
    with pytest.raises(
        ValueError,
        match=r"what was found takes more than 0\.75 of the dense model's time; allow more",
    ):
        best_finalist(replace(searched, cost=lambda config: 2.0), measure, timed=True)
    # nothing but its MACs is known of one without a time
    assert best_finalist(searched, measure, timed=False).trial == promised


def test_where_all_miss_the_time_the_fastest_wins_and_what_holds_it_before_what_is_nearer(
    searched,
):
    few = leaders(searched.study)[:3]
    shares = {}
    for trial, off in zip(few, (1.2, 1.3, 1.1), strict=True):
        shares[trial.config.blocks] = BUDGET * off
    fastest = best_finalist(searched, lambda config: measured(shares[config.blocks]), timed=True)
    assert fastest.final.config.blocks == few[2].config.blocks
    noise = itertools.cycle((1.03, 0.96, 0.96))
    best = best_finalist(searched, lambda config: measured(BUDGET * next(noise)), timed=True)
    assert best.final.time_share == pytest.approx(0.96 * BUDGET)


@pytest.mark.parametrize(
    ("goal", "share", "timed", "said"),
    [
        (Goal(budget=0.5), 0.5, True, "the target is held: asked 2.00, measured 2.00"),
        (
            Goal(budget=0.5),
            0.52,
            True,
            "the target is nearly held, by 4.0 %: asked 2.00, measured 1.92",
        ),
        (Goal(budget=0.5), 0.6, True, "the target is missed, by 20.0 %: asked 2.00, measured 1.67"),
        (Goal(budget=0.5), 0.9, False, "the target is held: asked 0.000 G MACs, has 0.000"),
        (
            Goal(max_drop=0.5),
            0.9,
            True,
            "the limit holds on the pictures held out: lost 0.40 points of top-1, 0.5 may be",
        ),
        (
            Goal(max_drop=0.3),
            0.9,
            True,
            "the limit does not hold on the pictures held out: lost 0.40 points",
        ),
    ],
)
def test_whether_a_target_is_held_is_said(goal, share, timed, said):
    found = Measured(BATConfig(), measured(share), 0.5)
    assert goal_sentence(goal, found, 0.4, timed=timed).startswith(said)


@pytest.mark.parametrize("share", [0.3, 0.5, 0.8])
def test_a_target_is_not_judged_by_times_that_spread_too_much(share):
    noisy = measured(share)._replace(unsteady=True, speedups=Quartiles(1.0, 1 / share, 4.0))
    found = Measured(BATConfig(), noisy, 0.5)
    assert goal_sentence(Goal(budget=0.5), found, 0.4, timed=True) == (
        "the target cannot be judged, as times spread too much (speed-ups of 1.00 to 4.00 in half "
        f"of the rounds): asked 2.00, measured {1 / share:.2f}"
    )


@pytest.mark.parametrize(
    ("goal", "share", "timed", "may"),
    [
        (Goal(budget=0.5), 0.5, True, True),
        (Goal(budget=0.5), 0.52, True, False),
        # a preset at equal MACs has those
        (Goal(budget=0.5), 0.9, False, True),
        (Goal(max_drop=0.5), 0.1, True, False),
    ],
)
def test_a_preset_that_breaks_the_budget_cannot_win(goal, share, timed, may):
    assert preset_may_win(goal, Measured(BATConfig(), measured(share), 0.5), timed=timed) == may


def test_the_preset_stands_beside_at_equal_time_or_macs_or_not_at_all(deep, monkeypatch):
    def at_macs(dense, family, share):
        if share < 0.4:
            raise OutOfReachError(f"nothing at {share:g}")
        return BATConfig.preset(keep_rate=share)

    def at_time(dense, family, share, time_share):
        config = at_macs(dense, family, share)
        return config, time_share(config)

    monkeypatch.setattr("batvit.tune.finalists.at_macs", at_macs)
    monkeypatch.setattr("batvit.tune.finalists.at_time", at_time)

    def preset(share, macs, *, timed):
        tuned = Measured(BATConfig(), measured(share, macs), share)
        return preset_at_same(deep, tuned, lambda config: measured(config.keep_rate), timed=timed)

    at, found, missing = preset(0.6, 70, timed=True)
    assert at == "time"
    assert found.config.keep_rate == 0.6
    assert found.time_share == pytest.approx(0.6)
    assert missing == []
    at, found, missing = preset(0.6, 70, timed=False)
    assert (at, found.config.keep_rate, missing) == ("MACs", 0.7, [])
    at, found, missing = preset(0.3, 70, timed=True)
    assert (at, found.config.keep_rate) == ("MACs", 0.7)
    assert missing == ["no preset at equal time: nothing at 0.3"]
    assert preset(1.1, 70, timed=True).missing == [
        "no preset at equal time: tuned saves nothing over the dense model"
    ]
    assert preset(0.6, 33, timed=False) == (
        None,
        None,
        ["no preset at equal MACs: nothing at 0.33"],
    )
