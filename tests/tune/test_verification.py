"""What was found beside the preset, on pictures held out, and which of both is written."""

import json
from dataclasses import replace

import pytest

from batvit.config import BATConfig
from batvit.tune.finalists import Measured, PresetMatch
from batvit.tune.space import Candidate


@pytest.mark.parametrize(("keep_rate", "wins"), [(1.0, True), (0.01, False)])
def test_a_preset_that_loses_less_is_written_instead(tune, tmp_path, monkeypatch, keep_rate, wins):
    preset = BATConfig.preset("paper", keep_rate=keep_rate, blocks=(0,))

    def preset_at_same(dense, tuned, measure, *, timed):
        return PresetMatch("MACs", Measured(preset, measure(preset), 0.7), [])

    monkeypatch.setattr("batvit.tune.verification.preset_at_same", preset_at_same)
    tuned = tune(tmp_path / "out", target_macs=0.7, trials=3)
    expected = preset if wins else tuned.tuned.measured.config
    assert tuned.config == expected
    assert BATConfig.load(tmp_path / "out" / "config.json") == expected
    assert ("the preset is written" in str(tuned)) == wins


@pytest.mark.parametrize(("share", "wins"), [(0.76, True), (0.9, False)])
def test_a_preset_that_takes_more_time_than_asked_for_is_not_written(
    tune, tmp_path, slower, monkeypatch, share, wins
):
    # it changes nothing, so it loses nothing
    preset = BATConfig.preset("paper", keep_rate=1.0, blocks=(0,))

    def preset_at_same(dense, tuned, measure, *, timed):
        taken = tuned.measurement._replace(speedup=1 / share)
        return PresetMatch("MACs", Measured(preset, taken, share), [])

    monkeypatch.setattr("batvit.tune.verification.preset_at_same", preset_at_same)
    tuned = tune(tmp_path / "out", target_speedup=1.333, trials=3)
    assert tuned.config == (preset if wins else tuned.tuned.measured.config)
    assert ("the preset is written" in str(tuned)) == wins
    # what is said of the time is said of what is written
    assert (f"measured {1 / share:.2f}" in tuned.sentences[0]) == wins


def test_tune_without_a_preset_that_goes_so_low_says_so(tune, tmp_path, monkeypatch):
    early = Candidate(1, 0, 5, 1.0, 0.5, 0.1, 2, "tokens", "size", True)
    monkeypatch.setattr(Candidate, "suggest", lambda trial, depth: early)
    tuned = tune(tmp_path / "out", target_macs=0.33, trials=1)
    result = json.loads((tmp_path / "out" / "result.json").read_text())
    assert result["preset"] is None
    assert result["preset_at_same"] is None
    assert "difference" not in result
    assert result["tuned"]["gmacs"] > 0
    assert "no preset at equal MACs: bat cannot go down to 0.3" in str(tuned)
    assert "preset, equal" not in str(tuned)


def test_tune_within_a_drop_says_whether_it_holds(tune, tmp_path, slower, alone):
    tuned = tune(tmp_path / "out", labels=True, max_drop=100.0, trials=3)
    assert "the limit holds on the pictures held out: lost " in str(tuned)
    result = json.loads((tmp_path / "out" / "result.json").read_text())
    assert result["tuned"]["drop"] <= 100


def test_both_are_compared_on_the_same_pictures(tune, tmp_path):
    tuned = tune(tmp_path / "out", target_macs=0.7, trials=4, held_out=5)
    assert tuned.samples == 5
    assert len(tuned.tuned.score.losses) == len(tuned.preset.score.losses) == 5
    difference = tuned.differences["loss"]
    expected = tuned.tuned.score.loss - tuned.preset.score.loss
    assert difference.mean == pytest.approx(expected, abs=1e-6)
    assert difference.low <= difference.mean <= difference.high
    assert tuned.preset_at_same == "MACs"
    macs = tuned.tuned.measured.measurement.macs
    assert tuned.preset.measured.measurement.macs == pytest.approx(macs, rel=0.2)
    assert tuned.time_errors is None
    assert replace(tuned, differences=None).to_dict().keys() == tuned.to_dict().keys() - {
        "difference"
    }
