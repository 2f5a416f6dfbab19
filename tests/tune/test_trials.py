"""The journal of a search: what it keeps of a trial, and of a search in parts."""

import json

import optuna
import pytest

from batvit.backbones.registry import anatomy_of
from batvit.tune.search import BEGIN, Goal, best_of
from batvit.tune.trials import (
    JOURNAL,
    Trial,
    complete,
    count_finished,
    cut_short,
    leaders,
    losses,
    mend_journal,
    newest,
    open_study,
    seed_sampler,
    studies,
)


def test_a_trial_is_kept_as_plain_values(deep):
    config = BEGIN[0].at(9.0, anatomy_of(deep))
    trial = Trial(candidate=BEGIN[0], config=config, cost=0.5, loss=0.1, drop=2.0)
    values = json.loads(json.dumps(trial.to_dict()))
    assert list(values) == ["config", "cost", "loss", "drop", "candidate"]
    assert Trial.from_dict(values) == trial


def test_an_interrupt_is_no_traceback(search):
    search(Goal(budget=0.75))
    assert optuna.logging.get_verbosity() == optuna.logging.ERROR


def test_the_leaders_have_each_other_blocks_the_best_first(search, stub):
    stub()
    found = search(Goal(budget=0.75))
    found.run(trials=8)
    best = leaders(found.study)
    assert best[0] == best_of(found.study, found.goal)
    assert [trial.loss for trial in best] == sorted(trial.loss for trial in best)
    blocks = [trial.config.blocks for trial in complete(found.study)]
    assert sorted(trial.config.blocks for trial in best) == sorted(set(blocks))
    assert losses(found.study) == [trial.loss for trial in complete(found.study)]


def test_the_newest_part_is_the_last_in_which_something_is_complete(search, stub, tmp_path):
    stub()
    assert studies(tmp_path) == []
    assert newest([]) is None
    first = search(Goal(budget=0.75))
    assert newest(studies(tmp_path)) is None
    first.run(trials=2)
    open_study(tmp_path, seed=0, part=1)
    assert [count_finished(study) for study in studies(tmp_path)] == [2, 0]
    assert newest(studies(tmp_path)).trials == first.study.trials
    assert (tmp_path / JOURNAL).is_file()


def test_what_an_interrupt_ends_is_told_once(tmp_path):
    study = open_study(tmp_path, seed=0)
    for _ in range(2):
        study.enqueue_trial({"sites": 3})
        study.tell(study.ask(), state=optuna.trial.TrialState.FAIL)
    assert cut_short(study) == [{"sites": 3}]


def test_what_a_killed_process_was_trying_waits_in_its_place(tmp_path):
    study = open_study(tmp_path, seed=0)
    for sites in (3, 4):
        study.enqueue_trial({"sites": sites})
    # never told what came of it
    study.ask()
    again = open_study(tmp_path, seed=0)
    assert cut_short(again) == []
    trial = again.ask()
    assert (trial.number, trial.suggest_int("sites", 1, 6)) == (0, 3)


def draws(study, number):
    values = []
    for _ in range(number):
        seed_sampler(study)
        trial = study.ask()
        values.append((trial.suggest_int("sites", 1, 90), trial.suggest_float("decay", 0, 1)))
        study.tell(trial, sum(values[-1]))
    return values


def test_a_killed_search_draws_what_it_would_have_drawn(tmp_path):
    folders = [tmp_path / name for name in ("whole", "killed", "other seed")]
    for folder in folders:
        folder.mkdir()
    whole = draws(open_study(folders[0], seed=0), 30)
    first = open_study(folders[1], seed=0)
    before = draws(first, 26)
    seed_sampler(first)
    # killed between two draws of a trial
    first.ask().suggest_int("sites", 1, 90)
    assert before + draws(open_study(folders[1], seed=0), 4) == whole
    assert draws(open_study(folders[2], seed=1), 2) != whole[:2]


@pytest.mark.parametrize("torn", ["", "{", '{"op_code": 0, "worker_id": "'])
def test_a_journal_that_ends_in_half_a_line_is_gone_on_with(tmp_path, torn):
    mend_journal(tmp_path)
    study = open_study(tmp_path, seed=0)
    draws(study, 2)
    with (tmp_path / JOURNAL).open("a") as journal:
        journal.write(torn)
    mend_journal(tmp_path)
    draws(open_study(tmp_path, seed=0), 1)
    assert [count_finished(study) for study in studies(tmp_path)] == [3]
