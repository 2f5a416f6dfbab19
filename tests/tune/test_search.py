"""The search: where it begins, how it goes on, what it leaves out, and what it gives."""

import itertools
import json
import statistics
from dataclasses import asdict, replace

import pytest

import batvit
from batvit.backbones.registry import anatomy_of
from batvit.measure.pareto import pareto_front
from batvit.module_copy import light_copy
from batvit.tune.objective import score
from batvit.tune.search import BEGIN, Goal, Search, best_of
from batvit.tune.space import Candidate
from batvit.tune.trials import (
    complete,
    count_finished,
    cut_short,
    leaders,
    newest,
    open_study,
    studies,
)

BUDGET = 0.75


def candidates(study):
    """What the trials of a study tried, as plain values."""
    tried = []
    for trial in study.trials:
        params = dict(trial.params)
        params.pop("budget", None)
        tried.append(params)
    return tried


def test_a_real_search_gives_what_fits_and_what_it_says(model, cost, data, tmp_path):
    heard = []
    search = Search(model, data, cost, Goal(budget=0.6), open_study(tmp_path, seed=0))
    search.run(trials=4, progress=lambda: heard.append(1))
    assert len(heard) == count_finished(search.study) == 4
    best = best_of(search.study, Goal(budget=0.6))
    assert cost(best.config) == best.cost <= 0.6
    assert best.candidate.within(0.6, cost, anatomy_of(model)) == best.config
    reduced = batvit.patch(light_copy(model), best.config)
    assert score(reduced, data).loss == pytest.approx(best.loss, rel=1e-4)
    assert search.loss_of(best.config) == pytest.approx(best.loss, rel=1e-4)


# many trials on no pictures


@pytest.mark.parametrize("goal", [Goal(budget=BUDGET), Goal(max_drop=5.0)])
def test_a_search_begins_with_what_is_known_to_be_good(search, stub, goal):
    stub()
    found = search(goal)
    found.run(trials=4)
    assert candidates(found.study)[:3] == [asdict(candidate) for candidate in BEGIN]


def test_a_search_goes_on_where_it_was_left(search, stub):
    stub()
    search(Goal(budget=BUDGET)).run(trials=5)
    again = search(Goal(budget=BUDGET))
    again.run(trials=5)
    assert count_finished(again.study) == 5
    again.run(trials=9)
    assert count_finished(again.study) == 9
    # no point is drawn twice
    assert len({json.dumps(trial.params, sort_keys=True) for trial in again.study.trials}) == 9


def test_the_same_seed_tries_the_same(search, stub, tmp_path):
    stub()
    tried = []
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        found = search(Goal(budget=BUDGET), seed=3, folder=tmp_path / name)
        found.run(trials=6)
        tried.append([trial.params for trial in found.study.trials])
    assert tried[0] == tried[1]


@pytest.mark.parametrize(
    ("goal", "state"), [(Goal(budget=0.97), "PRUNED"), (Goal(max_drop=100.0), "COMPLETE")]
)
def test_hopeless_trials_are_left_once_there_is_something_to_go_by(
    search, stub, monkeypatch, goal, state
):
    number = itertools.count()
    stub(lambda config: 1.0 if next(number) < 4 else 2.0)
    monkeypatch.setattr("batvit.tune.trials.FIRST_TRIALS", 4)
    found = search(goal)
    found.run(trials=14)
    scored = [trial.state.name for trial in found.study.trials if trial.intermediate_values]
    assert scored[:4] == ["COMPLETE"] * 4
    assert set(scored[4:]) == {state}


def test_an_interrupt_loses_no_trial(search, stub):
    number = itertools.count()

    def interrupted(config):
        if next(number) == 1:
            raise KeyboardInterrupt
        return 1.0

    stub(interrupted)
    with pytest.raises(KeyboardInterrupt):
        search(Goal(budget=BUDGET)).run(trials=5)
    found = search(Goal(budget=BUDGET))
    assert count_finished(found.study) == 1
    assert [Candidate(**params) for params in cut_short(found.study)] == [BEGIN[1]]
    found.run(trials=5)
    assert count_finished(found.study) == 5
    done = [params for params in candidates(found.study) if params]
    assert [done.count(asdict(candidate)) for candidate in BEGIN] == [1, 2, 1]
    # what was tried again is not tried a third time
    assert cut_short(found.study) == []


def test_the_next_part_begins_with_the_best_of_the_one_before_at_what_they_cost_by_then(
    search, stub, tmp_path
):
    stub()
    first = search(Goal(budget=BUDGET))
    first.run(trials=8)
    best = leaders(first.study)
    study = open_study(tmp_path, seed=0, part=1)
    assert newest(studies(tmp_path)).trials == first.study.trials
    second = replace(
        first, study=study, before=first.study, cost=lambda config: 1.1 * first.cost(config)
    )
    second.run(trials=len(best) + 2)
    assert candidates(study)[: len(best)] == [asdict(trial.candidate) for trial in best]
    assert newest(studies(tmp_path)).trials == study.trials
    again = best_of(study, first.goal)
    assert 1.1 * first.cost(again.config) <= BUDGET < 1.1 * best[0].cost
    # a part that nothing reaches by then is left out
    third = replace(second, study=open_study(tmp_path, seed=0, part=2), cost=lambda config: 2.0)
    third.run(seconds=600.0)
    assert [len(part.trials) for part in studies(tmp_path)] == [8, len(best) + 2, 0]
    # and what is drawn is not drawn again
    drawn = candidates(study)[len(best) :]
    assert not any(params in candidates(first.study) for params in drawn)


def test_a_trial_that_torch_fails_in_is_left_and_the_search_goes_on(search, stub):
    number = itertools.count()

    def fails(config):
        if next(number) == 0:
            raise RuntimeError("no\nroom")
        return 1.0

    stub(fails)
    found = search(Goal(budget=BUDGET))
    found.run(trials=4)
    assert [trial.state.name for trial in found.study.trials] == ["FAIL", *["COMPLETE"] * 3]
    assert cut_short(found.study) == []


def test_where_every_trial_fails_the_search_ends_and_says_why(search, stub):
    def fails(config):
        raise RuntimeError("no\nroom")

    stub(fails)
    found = search(Goal(budget=BUDGET))
    found.run(trials=50)
    assert count_finished(found.study) < 20
    with pytest.raises(ValueError, match="within the budget; 5 failed: no room; allow more"):
        best_of(found.study, Goal(budget=BUDGET))


def test_a_loss_that_is_not_finite_is_none(search, stub):
    stub(lambda config: float("nan"))
    found = search(Goal(budget=BUDGET))
    found.run(trials=2)
    assert count_finished(found.study) == 2
    assert not complete(found.study)


def test_a_trial_whose_logits_are_not_finite_is_left_and_is_no_point_of_the_front(search, stub):
    number = itertools.count()

    def overflows(config):
        if next(number) % 2 == 0:
            raise ValueError("the reduced model: logits are not finite")
        return 1.0

    stub(overflows)
    found = search(Goal(budget=BUDGET))
    found.run(trials=4)
    assert [trial.state.name for trial in found.study.trials] == ["PRUNED", "COMPLETE"] * 2
    best = best_of(found.study, found.goal)
    assert found.loss_of(best.config) == float("inf")
    assert found.loss_of(best.config) == 1.0
    assert 0 < len(found.around()) < 8


def test_what_no_configuration_reaches_is_refused_before_the_search(search):
    found = search(Goal(budget=0.05))
    with pytest.raises(
        ValueError,
        match=r"down to 0.05 of the dense model's cost; the nearest that can be had is 0\.\d+, ",
    ):
        found.run(seconds=600.0)
    assert not found.study.trials


def test_the_least_cost_within_a_drop_or_the_nearest_named(search, stub):
    stub()
    found = search(Goal(max_drop=0.1))
    found.run(trials=12)
    done = complete(found.study)
    limit = statistics.median(trial.drop for trial in done)
    best = best_of(found.study, Goal(max_drop=limit))
    assert best.cost == min(trial.cost for trial in done if trial.drop <= limit)
    # the limit binds
    assert best.cost > min(trial.cost for trial in done)
    with pytest.raises(
        ValueError, match=r"loses at most 0 points; the nearest loses 0\.\d+ at 0\.\d+ of the cost"
    ):
        best_of(found.study, Goal(max_drop=0.0))


def test_the_front_has_more_than_the_budget_that_all_trials_spend(search, stub):
    stub()
    found = search(Goal(budget=BUDGET))
    found.run(trials=8)
    front = pareto_front(
        [*complete(found.study), *found.around()],
        cost=lambda trial: trial.cost,
        loss=lambda trial: trial.loss,
    )
    assert front[0].cost < 0.9 * BUDGET
    assert 1.1 * BUDGET < front[-1].cost <= 1.25 * BUDGET
    assert [trial.cost for trial in front] == sorted(trial.cost for trial in front)
    assert [trial.loss for trial in front] == sorted((trial.loss for trial in front), reverse=True)
    # the best is still one of the trials
    assert best_of(found.study, Goal(budget=BUDGET)).cost <= BUDGET
    assert search(Goal(max_drop=1.0)).around() == []
