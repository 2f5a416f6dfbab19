"""batvit tune: what it prints and writes, which options it refuses, and what an interrupt leaves.

What a tuning does is tested in tests/tune.
"""

import csv
import itertools
import json
import os
import shutil
from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import load_file, save_file

import batvit
from batvit.backbones.registry import anatomy_of
from batvit.cli import main
from batvit.config import BATConfig
from batvit.tune import search as searching
from batvit.tune.cost_model import count_samples
from batvit.tune.finalists import PresetMatch
from batvit.tune.objective import TuningSet
from batvit.tune.space import varied_configs
from batvit.tune.trials import JOURNAL

NAME = "test_vit"


@pytest.fixture(scope="module")
def fitted():
    """What the model's configurations cost in MACs."""
    model = timm.create_model(NAME, num_classes=3, img_size=96)
    return count_samples(model, varied_configs(anatomy_of(model), 13))


@pytest.fixture(autouse=True)
def _quick(monkeypatch, fitted):
    """Nothing is fitted anew, and nothing is timed for long."""
    monkeypatch.setattr("batvit.tune.parts.count_samples", lambda dense, configs: fitted)
    monkeypatch.setattr("batvit.tune.parts.ROUNDS", 1)
    monkeypatch.setattr("batvit.tune.verification.ROUNDS", 1)


@pytest.fixture
def alone(monkeypatch):
    """No preset is brought to the same cost."""

    def preset_at_same(dense, tuned, measure, *, timed):
        return PresetMatch(None, None, [])

    monkeypatch.setattr("batvit.tune.verification.preset_at_same", preset_at_same)


def tune(given, output, *arguments):
    return main(["tune", *given, "--samples", "6", "-o", str(output), *map(str, arguments)])


def with_value(given, old, new):
    """The options with one of their values set otherwise."""
    return [str(new) if part == old else part for part in given]


def test_tune_writes_a_configuration_that_every_command_takes(given, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("batvit.tune.parts.count_samples", count_samples)
    out = tmp_path / "out"
    also = tmp_path / "also.json"
    assert tune(given, out, "--target-macs", "0.7", "--trials", 4, "--json", also) == 0
    result = json.loads((out / "result.json").read_text())
    assert json.loads(also.read_text()) == result
    model = timm.create_model(NAME, num_classes=3, img_size=96)
    config = BATConfig.load(out / "config.json")
    assert config == BATConfig.from_dict(result["config"])
    assert result["config"] in (result["tuned"]["config"], result["preset"]["config"])
    info = batvit.info(batvit.patch(model, config))
    assert info.macs <= 0.7 * info.dense_macs
    assert result["model"] == NAME
    assert result["preset_at_same"] == "MACs"
    assert result["preset"]["gmacs"] == pytest.approx(result["tuned"]["gmacs"], rel=0.2)
    difference = result["difference"]["loss"]
    assert difference["mean"] == pytest.approx(
        result["tuned"]["loss"] - result["preset"]["loss"], abs=1e-6
    )
    assert difference["low"] <= difference["mean"] <= difference["high"]
    assert result["held_out"] == 6
    with (out / "front.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    front = [BATConfig.from_dict(json.loads(row["config"])) for row in rows]
    assert len(front) > 1
    metadata = json.loads((out / "metadata.json").read_text())
    assert metadata["model"] == NAME
    assert metadata["data"] == given[given.index("--data") + 1]
    assert metadata["checkpoint"] == given[2]
    assert metadata["class_map"] is None
    assert (metadata["precision"], metadata["device"], metadata["labels"]) == ("fp32", "cpu", False)
    printed = capsys.readouterr().out
    assert "the front: cost as a share of the dense model's" in printed
    assert "the target is held: asked 0." in printed
    assert "preset, equal MACs" in printed
    assert "on 6 pictures held out tuned is " in printed
    assert " the preset at equal MACs: loss " in printed
    assert printed.splitlines()[-1].startswith(f"wrote {out / 'config.json'}; use it with --config")


def test_tune_goes_on_only_if_it_is_told_to(given, tmp_path, alone, capsys):
    out = tmp_path / "out"
    assert tune(given, out, "--target-macs", "0.7", "--trials", 1) == 0
    assert tune(given, out, "--target-macs", "0.7", "--trials", 2) == 2
    assert "already holds a search" in capsys.readouterr().err
    assert tune(given, out, "--target-macs", "0.7", "--trials", 2, "--resume") == 0


def test_tune_goes_on_with_the_same_weights_and_pictures_alone(
    given, tmp_path, monkeypatch, alone, capsys
):
    weights = tmp_path / "vit.safetensors"
    data = tmp_path / "data"
    out = tmp_path / "out"
    data_of_all = given[given.index("--data") + 1]
    shutil.copytree(data_of_all, data)
    shutil.copy(given[2], weights)
    own = with_value(with_value(given, given[2], weights), data_of_all, data)
    assert tune(own, out, "--target-macs", "0.7", "--trials", 1) == 0
    monkeypatch.setattr(TuningSet, "of", None)
    times = {path: path.stat().st_mtime_ns for path in data.rglob("*.png")}
    for path in times:
        os.utime(path, ns=(0, 0))
    assert tune(own, out, "--target-macs", "0.7", "--trials", 2, "--resume") == 2
    assert "begun with pictures = " in capsys.readouterr().err
    for path, time in times.items():
        os.utime(path, ns=(time, time))
    os.utime(weights, ns=(0, 0))
    assert tune(own, out, "--target-macs", "0.7", "--trials", 2, "--resume") == 2
    assert "begun with weights" in capsys.readouterr().err


def test_a_picture_that_is_cut_short_can_be_skipped_afterwards(given, tmp_path, alone, capsys):
    data_of_all = given[given.index("--data") + 1]
    data = tmp_path / "data"
    out = tmp_path / "out"
    shutil.copytree(data_of_all, data)
    path = next(data.rglob("*.png"))
    path.write_bytes(path.read_bytes()[:2000])
    own = with_value(given, data_of_all, data)
    assert tune(own, out, "--target-macs", "0.7", "--trials", 1) == 2
    assert f"{path.name}: cannot be read as a picture" in capsys.readouterr().err
    arguments = ("--target-macs", "0.7", "--trials", 1, "--skip-unreadable", "--held-out", 3)
    assert tune(own, out, *arguments) == 0
    assert (out / "config.json").is_file()


def test_pictures_without_labels_may_lie_anywhere(given, tmp_path, alone, capsys):
    data_of_all = given[given.index("--data") + 1]
    for i, path in enumerate(sorted(Path(data_of_all).rglob("*.png"))):
        shutil.copy(path, tmp_path / f"{i}.png")
    flat = with_value(given, data_of_all, tmp_path)
    runs = tmp_path / "runs"
    runs.mkdir()
    assert tune(flat, runs / "out", "--target-macs", "0.7", "--trials", 1) == 0
    capsys.readouterr()
    assert tune(flat, runs / "labels", "--target-macs", "0.7", "--trials", 1, "--labels") == 2
    assert (
        "lies beside the class folders; put each picture into the folder of its class"
        in capsys.readouterr().err
    )


def test_an_interrupt_leaves_the_best_so_far(given, tmp_path, monkeypatch, capfd):
    number = itertools.count()
    score = searching.score

    def interrupted(*arguments):
        if next(number) == 2:
            raise KeyboardInterrupt
        return score(*arguments)

    out = tmp_path / "out"
    with monkeypatch.context() as patched:
        patched.setattr(searching, "score", interrupted)
        assert tune(given, out, "--target-macs", "0.8", "--trials", 9) == 130
    assert "Traceback" not in capfd.readouterr().err
    assert BATConfig.load(out / "config.json").blocks
    assert not (out / "result.json").exists()


def test_a_dense_model_that_is_not_finite_is_refused_before_the_search(given, tmp_path, capsys):
    weights = load_file(given[2])
    weights["head.bias"] = torch.full((3,), float("nan"))
    save_file(weights, tmp_path / "nan.safetensors")
    broken = with_value(given, given[2], tmp_path / "nan.safetensors")
    assert tune(broken, tmp_path / "out", "--target-macs", "0.7", "--trials", 1) == 2
    assert "the dense model: logits are not finite" in capsys.readouterr().err
    assert not (tmp_path / "out" / JOURNAL).exists()


def test_a_budget_out_of_reach_names_the_nearest_before_the_search(given, tmp_path, capsys):
    assert tune(given, tmp_path / "out", "--target-macs", "0.01") == 2
    assert (
        "no configuration goes down to 0.01 of the dense model's cost; the nearest that can be had"
        in capsys.readouterr().err
    )


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (("--target-speedup", "0.9"), "must be above 1 and below 100; 1.5 is half as fast again"),
        (("--target-speedup", "150"), "must be above 1 and below 100"),
        (("--max-drop", "0.5"), "is about accuracy, and needs labels"),
        (("--target-macs", "100G"), "must be below the 0."),
        (("--target-macs", "0.5", "--minutes", "0"), "must be above 0"),
        (("--target-macs", "0.5", "--samples", "7"), "need 14; lower them"),
    ],
)
def test_tune_refuses(given, tmp_path, capsys, arguments, reason):
    assert tune(given, tmp_path / "out", *arguments) == 2
    out, err = capsys.readouterr()
    assert reason in err
    assert err.count("\n") == 1
    assert out == ""
    assert not (tmp_path / "out").exists()


def test_tune_refuses_values_before_the_model_is_made(given, tmp_path, monkeypatch):
    monkeypatch.setattr("batvit.cli.load_models.load_dense", None)
    assert tune(given, tmp_path / "out", "--target-speedup", "0.9") == 2
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / JOURNAL).touch()
    assert tune(given, tmp_path / "out", "--target-speedup", "1.5") == 2


@pytest.mark.parametrize(
    ("macs", "reason"),
    [
        ("1.2", "1.2 MACs; did you mean 1.2G?"),
        ("1", "did you mean 1G?"),
        ("-1", "more than 0"),
        ("many", "expected MACs such as"),
    ],
)
def test_tune_refuses_what_is_no_number_of_macs(given, tmp_path, capsys, macs, reason):
    with pytest.raises(SystemExit) as left:
        tune(given, tmp_path / "out", f"--target-macs={macs}")
    assert left.value.code == 2
    assert reason in capsys.readouterr().err
