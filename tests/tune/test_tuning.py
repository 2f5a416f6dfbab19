"""A whole tuning: what it writes, how it goes on, and what it refuses."""

import json
import os
import shutil
from dataclasses import replace

import pytest
import torch

import batvit
from batvit.config import BATConfig
from batvit.data.folder import image_folder, unlabelled
from batvit.module_copy import light_copy
from batvit.storage.run_folder import claimed
from batvit.tune.objective import TuningSet
from batvit.tune.space import Candidate
from batvit.tune.trials import JOURNAL


def test_a_tuning_gives_a_configuration_and_writes_what_it_found(tune, small, tmp_path):
    out = tmp_path / "out"
    tuned = tune(out, target_macs=0.7, trials=4)
    assert BATConfig.load(out / "config.json") == tuned.config
    assert json.loads((out / "result.json").read_text()) == json.loads(json.dumps(tuned.to_dict()))
    assert {path.name for path in out.iterdir()} == {
        ".lock",
        "metadata.json",
        "config.json",
        "front.csv",
        "result.json",
        JOURNAL,
    }
    info = batvit.info(batvit.patch(light_copy(small), tuned.config))
    assert info.macs <= 0.7 * info.dense_macs
    assert len(tuned.front) > 1
    costs = [trial.cost for trial in tuned.front]
    assert costs == sorted(costs)
    assert tuned.model == "VisionTransformer"
    # the model is left alone
    assert batvit.config_of(small) is None


def test_the_metadata_say_what_must_be_the_same(tune, slower, alone, tmp_path):
    metadata = {"model": "mine", "weights": "first"}
    tuned = tune(tmp_path / "out", target_speedup=1.3, trials=1, metadata=metadata)
    assert tuned.model == "mine"
    metadata = json.loads((tmp_path / "out" / "metadata.json").read_text())
    assert metadata["model"] == "mine"
    assert metadata["weights"] == "first"
    assert metadata["precision"] == "fp32"
    assert metadata["device"] == "cpu"
    assert metadata["img_size"] == [96, 96]
    assert metadata["samples"] == 6
    assert {"labels", "batch_size", "seed", "pictures", "commit", "cpu", "threads"} <= set(metadata)


def test_a_folder_that_another_writes_into_is_left_alone(tune, tmp_path):
    out = tmp_path / "out"
    with (
        claimed(out),
        pytest.raises(
            FileExistsError,
            match="another run is writing into it; wait for it, or name another folder",
        ),
    ):
        tune(out, target_macs=0.7, trials=1)
    assert [path.name for path in out.iterdir()] == [".lock"]


def test_tune_goes_on_with_the_same_and_nothing_else(tune, tmp_path, monkeypatch, alone):
    out = tmp_path / "out"
    tune(out, target_macs=0.7, trials=1)
    with pytest.raises(FileExistsError, match=r"already holds a search .* by resume=True"):
        tune(out, target_macs=0.7, trials=2)
    tune(out, target_macs=0.7, trials=2, resume=True)
    # nothing is decoded, or shown to the dense model, before
    monkeypatch.setattr(TuningSet, "of", None)
    with pytest.raises(ValueError, match=r"begun with target_macs = 0\.7, and cannot go on with"):
        tune(out, target_macs=0.6, trials=2, resume=True)
    monkeypatch.setattr("batvit.tune.tuning.git_commit", lambda: "another")
    with pytest.raises(ValueError, match=", and cannot go on with another"):
        tune(out, target_macs=0.7, trials=2, resume=True)


def test_tune_goes_on_with_the_same_weights_and_pictures_alone(
    tune, small, pictures, tmp_path, monkeypatch, alone
):
    root = tmp_path / "data"
    shutil.copytree(pictures.samples[0][0].parents[1], root)
    mine = image_folder(root)
    out = tmp_path / "out"
    tune(out, pictures=mine, target_macs=0.7, trials=1)
    monkeypatch.setattr(TuningSet, "of", None)
    times = {path: path.stat().st_mtime_ns for path in root.rglob("*.png")}
    for path in times:
        os.utime(path, ns=(0, 0))
    with pytest.raises(ValueError, match="begun with pictures = "):
        tune(out, pictures=mine, target_macs=0.7, trials=2, resume=True)
    for path, time in times.items():
        os.utime(path, ns=(time, time))
    other = light_copy(small)
    other.norm = torch.nn.LayerNorm(other.embed_dim)
    torch.nn.init.constant_(other.norm.bias, 0.5)
    with pytest.raises(ValueError, match="begun with weights = "):
        tune(out, dense=other.eval(), pictures=mine, target_macs=0.7, trials=2, resume=True)


def test_a_time_is_not_taken_to_another_machine(tune, tmp_path, slower, alone):
    out = tmp_path / "out"
    tune(out, target_speedup=1.3, trials=1)
    metadata = json.loads((out / "metadata.json").read_text())
    (out / "metadata.json").write_text(json.dumps(metadata | {"cpu": "Another"}))
    with pytest.raises(ValueError, match="begun with cpu = Another, and cannot go on with "):
        tune(out, target_speedup=1.3, trials=3, resume=True)


def test_pictures_are_drawn_by_the_seed_and_the_callers_are_left_alone(
    tune, pictures, tmp_path, alone
):
    before = list(pictures.samples)
    digests = []
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        tune(tmp_path / name, target_macs=0.7, trials=1, seed=seed)
        metadata = json.loads((tmp_path / name / "metadata.json").read_text())
        digests.append(metadata["pictures"])
    assert digests[0] == digests[1] != digests[2]
    assert pictures.samples == before
    assert pictures.transform is None


def test_a_dense_model_that_is_not_finite_is_refused_before_the_search(tune, small, tmp_path):
    broken = light_copy(small)
    broken.head = torch.nn.Linear(broken.head.in_features, 3)
    torch.nn.init.constant_(broken.head.bias, float("nan"))
    with pytest.raises(ValueError, match="the dense model: logits are not finite"):
        tune(tmp_path / "out", dense=broken, target_macs=0.7, trials=1)
    assert not (tmp_path / "out" / JOURNAL).exists()


def test_a_budget_out_of_reach_names_the_nearest_before_the_search(tune, tmp_path):
    with pytest.raises(
        ValueError,
        match=r"no configuration goes down to 0\.01 of the dense model's cost; the nearest that",
    ):
        tune(tmp_path / "out", target_macs=0.01)


def test_where_no_trial_is_within_the_budget_that_is_said(tune, tmp_path, monkeypatch):
    monkeypatch.setattr(Candidate, "within", lambda self, budget, cost, anatomy: None)
    with pytest.raises(ValueError, match="no configuration tried is within the budget; allow more"):
        tune(tmp_path / "out", target_macs=0.7, trials=2)
    assert not (tmp_path / "out" / "front.csv").exists()


def test_what_cannot_be_is_refused_before_anything_is_written(tune, small, pictures, tmp_path):
    out = tmp_path / "out"
    reduced = batvit.patch(light_copy(small), keep_rate=0.5, blocks=(1,))
    bare = unlabelled(pictures.samples[0][0].parents[1])
    for reason, arguments in (
        ("target_speedup=0.9: must be above 1", {"target_speedup": 0.9}),
        ("must be below the 0", {"target_macs": 100e9}),
        (
            "12 pictures, samples=7 and held_out=7 need 14; lower",
            {"target_macs": 0.5, "samples": 7},
        ),
        ("the model has a reduction; call batvit.unpatch", {"target_macs": 0.5, "dense": reduced}),
        (
            "labels=True: the pictures have no labels",
            {"target_macs": 0.5, "labels": True, "pictures": bare},
        ),
        (
            "there are 0 pictures, samples=6",
            {"target_macs": 0.5, "pictures": replace(bare, samples=[])},
        ),
    ):
        with pytest.raises(ValueError, match=reason):
            tune(out, **arguments)
        assert not out.exists()
    with pytest.raises(FileNotFoundError, match="does not exist; create it first"):
        tune(tmp_path / "none" / "out", target_macs=0.5)
