"""A search in parts: times known better from part to part, and what an interrupt leaves."""

import importlib
import itertools
import json

import pytest

from batvit.config import BATConfig
from batvit.tune.trials import FIRST_TRIALS, JOURNAL, count_finished, studies


def interrupt(monkeypatch, name, at):
    """Ctrl-C when a function of the room is called for the n-th time, counted from 0."""
    module = importlib.import_module(f"batvit.tune.{name.partition('.')[0]}")
    whole = getattr(module, name.partition(".")[2])
    number = itertools.count()

    def interrupted(*arguments, **more):
        if next(number) == at:
            raise KeyboardInterrupt
        return whole(*arguments, **more)

    monkeypatch.setattr(f"batvit.tune.{name}", interrupted)


def parts_of(samples):
    return {sample["part"] for sample in json.loads(samples.read_text())}


def test_tune_for_a_speed_corrects_the_time_by_what_it_measures(
    tune, tmp_path, slower, monkeypatch
):
    # so few trials are one part
    monkeypatch.setattr("batvit.tune.parts.FIRST_TRIALS", FIRST_TRIALS)
    tuned = tune(tmp_path / "out", target_speedup=1.3, trials=3)
    result = json.loads((tmp_path / "out" / "result.json").read_text())
    assert parts_of(tmp_path / "out" / "time.json") == {0}
    assert result["fitted_error"] == pytest.approx(1 / 1.05 - 1, abs=0.005)
    assert abs(result["time_error"]) < 0.005
    assert result["tuned"]["speedup"] == pytest.approx(1.3, rel=0.03)
    assert result["preset_at_same"] == "time"
    assert "the target is held: asked 1.30, measured 1.3" in str(tuned)
    assert " % of the measured one; 4." in str(tuned)


def test_tune_for_a_speed_knows_the_time_better_from_part_to_part(
    tune, tmp_path, slower, monkeypatch
):
    out = tmp_path / "out"
    tuned = tune(out, target_speedup=1.3, trials=3)
    kept = (out / "time.json").read_bytes()
    result = json.loads((out / "result.json").read_text())
    # what the first two of three parts found was timed, and made the third know better
    numbers = [sample["part"] for sample in json.loads(kept)]
    assert numbers == sorted(numbers)
    assert set(numbers) == {0, 1, 2}
    assert abs(result["fitted_error"]) < 0.02
    assert abs(result["time_error"]) < 0.02
    assert result["tuned"]["speedup"] == pytest.approx(1.3, rel=0.03)
    assert result["preset_at_same"] == "time"
    assert BATConfig.load(out / "config.json") == BATConfig.from_dict(result["config"])
    assert "the target is held: asked 1.30, measured 1." in str(tuned)
    # nothing is timed again
    monkeypatch.setattr("batvit.tune.parts.time_samples", None)
    again = tune(out, target_speedup=1.3, trials=3, resume=True)
    assert again.config == tuned.config
    assert (out / "time.json").read_bytes() == kept


def test_an_interrupt_leaves_the_best_so_far(tune, tmp_path, monkeypatch):
    out = tmp_path / "out"
    interrupt(monkeypatch, "search.score", 2)
    with pytest.raises(KeyboardInterrupt):
        tune(out, target_macs=0.8, trials=9)
    assert BATConfig.load(out / "config.json").blocks
    assert not (out / "result.json").exists()


def test_an_interrupt_in_the_second_part_loses_nothing(tune, tmp_path, slower, alone, monkeypatch):
    out = tmp_path / "out"
    with monkeypatch.context() as patched:
        interrupt(patched, "search.score", 2)
        with pytest.raises(KeyboardInterrupt):
            tune(out, target_speedup=1.3, trials=6)
    begun = [study.trials for study in studies(out)]
    assert len(begun) == 2
    assert BATConfig.load(out / "config.json").blocks
    tune(out, target_speedup=1.3, trials=6, resume=True)
    known = studies(out)
    assert sum(map(count_finished, known)) == 6
    assert known[0].trials == begun[0]
    assert [trial.value for trial in known[1].trials[:1]] == [trial.value for trial in begun[1][:1]]
    assert parts_of(out / "time.json") == {0, 1, 2}


def test_an_interrupt_before_anything_is_tried_leaves_nothing_to_go_on_with(
    tune, tmp_path, slower, alone, monkeypatch
):
    out = tmp_path / "out"
    with monkeypatch.context() as patched:
        interrupt(patched, "parts.time_samples", 0)
        with pytest.raises(KeyboardInterrupt):
            tune(out, target_speedup=1.3, trials=1)
    assert not (out / "config.json").exists()
    tune(out, target_speedup=1.3, trials=1)


def test_times_without_their_journal_are_taken_again_for_a_new_search(
    tune, tmp_path, slower, alone
):
    out = tmp_path / "out"
    tune(out, target_speedup=1.3, trials=3)
    (out / JOURNAL).unlink()
    assert "the target is held" in str(tune(out, target_speedup=1.3, trials=3))
    assert sum(map(count_finished, studies(out))) == 3


def test_what_is_done_is_told_with_the_number_of_trials(tune, tmp_path, slower, alone):
    told = []
    tune(
        tmp_path / "out",
        target_speedup=1.3,
        trials=3,
        progress=lambda text, trials: told.append((text, trials)),
    )
    texts = [text for text, _ in told]
    assert texts[0] == "reading the pictures"
    assert "timing whole models, to learn what blocks and sites cost here" in texts
    assert texts.count("timing the best so far") == 2
    assert texts[-1] == "measuring the best"
    numbers = [trials for _, trials in told]
    assert numbers == sorted(numbers)
    assert numbers[-1] == 3
    assert any(text.startswith("3 tried, best 0.") for text in texts)
