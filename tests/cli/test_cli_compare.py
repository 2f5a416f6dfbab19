"""batvit compare and batvit tune: what they write, how they go on, and what they refuse."""

import csv
import json

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from safetensors.torch import save_file

import batvit
from batvit import plans
from batvit.cli import compare as command
from batvit.cli import main
from batvit.cost import fit_macs
from batvit.plans import Plan
from batvit.training.record import claimed

NAME = "test_vit"


@pytest.fixture(autouse=True)
def _as_it_was(monkeypatch):
    monkeypatch.setenv("KINETO_LOG_LEVEL", "99")
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def given(tmp_path_factory):
    """Weights for three classes, and four pictures of each."""
    root = tmp_path_factory.mktemp("given")
    torch.manual_seed(0)
    model = timm.create_model(NAME, num_classes=3, img_size=96)
    save_file(model.state_dict(), root / "vit.safetensors")
    for i, label in enumerate(("bird", "cat", "dog")):
        (root / "data" / label).mkdir(parents=True)
        for j in range(4):
            pixels = np.random.default_rng(4 * i + j).integers(0, 256, (100, 100, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(root / "data" / label / f"{j}.png")
    model = (NAME, "--checkpoint", str(root / "vit.safetensors"), "--num-classes", "3", "--img-size", "96")
    return (*model, "--data", str(root / "data"), "--device", "cpu", "--threads", "1", "--batch-size", "5")


def compare(given, output, *arguments):
    quick = ("--plans", "bat,topk", "--targets", "0.8", "--rounds", "1", "--drawn", "1")
    return main(["compare", *given, *quick, "-o", str(output), *map(str, arguments)])


@pytest.fixture(autouse=True, scope="module")
def _times():
    """So small a model takes the time that it takes: one try, and whatever comes out is taken."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("batvit.budget.NEAR", 1e9)
        patched.setattr("batvit.budget.ATTEMPTS", 1)
        yield


@pytest.fixture(scope="module")
def done(given, tmp_path_factory):
    """A whole comparison."""
    out = tmp_path_factory.mktemp("done") / "out"
    assert compare(given, out) == 0
    return out


def test_everything_is_written_and_agrees(done):
    out = done
    result = json.loads((out / "result.json").read_text())
    assert result["samples"] == 12
    assert [(row["plan"], row["at"]) for row in result["rows"]] == [
        (plan, at) for plan in ("bat", "topk") for at in ("macs", "time")
    ]
    for row in result["rows"]:
        if row["at"] == "macs":
            assert 0.7 < row["mac_share"] <= 0.8
        assert row["difference"] == pytest.approx(row["top1"] - result["dense"]["top1"])
        assert row["difference_low"] <= row["difference"] <= row["difference_high"]
        assert row["speedup"] > 0
        assert row["realised_share"] == pytest.approx(row["speedup"] * row["mac_share"])
        # the configuration is one that every command takes
        assert batvit.BATConfig.from_dict(row["config"]).method == row["plan"]
    assert (result["dense"]["agreement"], result["dense"]["difference"]) == (100, 0)
    with (out / "table.csv").open(newline="") as file:
        table = list(csv.DictReader(file))
    assert [row["plan"] for row in table] == ["dense", "bat", "bat", "topk", "topk"]
    assert json.loads(table[1]["tokens"]) == result["rows"][0]["tokens"]
    page = (out / "report.html").read_text()
    assert page.count("data:image/png;base64,") == 1 + 2
    assert (out / "pareto.png").read_bytes().startswith(b"\x89PNG")


def test_the_accuracy_is_that_of_eval(given, done, tmp_path):
    found = tmp_path / "found.json"
    row = json.loads((done / "result.json").read_text())["rows"][0]
    (tmp_path / "config.json").write_text(json.dumps(row["config"]))
    assert main(["eval", *given, "--config", str(tmp_path / "config.json"), "--json", str(found)]) == 0
    evaluated = json.loads(found.read_text())
    assert {name: evaluated[name] for name in ("top1", "top5", "agreement")} == pytest.approx(
        {name: row[name] for name in ("top1", "top5", "agreement")}
    )


def test_an_interrupted_comparison_keeps_what_is_finished(given, tmp_path, monkeypatch, capsys):
    out = tmp_path / "out"

    def interrupted(study, *arguments, **settings):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(command, "watch", interrupted)
        assert compare(given, out, "--plans", "topk") == 130
    before = json.loads((out / "progress.json").read_text())["rows"]
    assert len(before) == 3
    assert compare(given, out) == 2
    assert "already holds a comparison; go on with it by --resume" in capsys.readouterr().err
    with monkeypatch.context() as patched:
        # nothing is timed again
        patched.setattr("batvit.compare.compare", None)
        assert compare(given, out, "--plans", "topk", "--resume") == 0
    printed = capsys.readouterr().out
    assert "at 0.8 of the MACs of the dense model" in printed
    assert "at 0.8 of the time of the dense model" in printed
    after = json.loads((out / "result.json").read_text())
    assert [row["step_time"] for row in (after["dense"], *after["rows"])] == [row["step_time"] for row in before]
    assert compare(given, out, "--resume", "--precision", "bf16") == 2
    assert "begun with precision = fp32, and cannot go on with bf16" in capsys.readouterr().err


def test_a_plan_that_fails_is_named_and_the_others_go_on(given, tmp_path, monkeypatch, capsys):
    def fails(evidence, counts, config):
        raise RuntimeError("this plan\nbreaks")

    monkeypatch.setitem(plans.PLANS, "topk", Plan(fails, drops=True))
    out = tmp_path / "out"
    assert compare(given, out) == 0
    result = json.loads((out / "result.json").read_text())
    assert {row["plan"] for row in result["rows"]} == {"bat"}
    assert [(one["plan"], one["at"], one["reason"]) for one in result["failed"]] == [
        ("topk", at, "this plan breaks") for at in ("macs", "time")
    ]
    assert "topk at 0.8 of the macs: this plan breaks" in capsys.readouterr().out
    assert "this plan breaks" in (out / "report.html").read_text()


def test_a_target_out_of_reach_says_the_nearest(given, tmp_path, capsys):
    assert compare(given, tmp_path / "out", "--targets", "0.01", "--plans", "bat") == 2
    assert "no plan meets a target: bat cannot go down to 0.01 of the MACs; the nearest is 0." in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (("--plans", "bat,tomme"), "unknown plan 'tomme'; there are bat, bat_gradual, topk"),
        (("--targets", "0.5,1.2"), "targets are shares of the dense model's cost, in (0, 1), got 0.5,1.2"),
        (("--targets", "half"), "expected numbers with commas, got 'half'"),
    ],
)
def test_compare_refuses(given, tmp_path, capsys, arguments, reason):
    with pytest.raises(SystemExit) as left:
        compare(given, tmp_path / "out", *arguments)
    assert left.value.code == 2
    assert reason in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("command", ["compare", "tune"])
def test_a_folder_that_another_writes_into_is_left_alone(given, tmp_path, capsys, command):
    out = tmp_path / "out"
    with claimed(out):
        ended = compare(given, out) if command == "compare" else tune(given, out, "--target-macs", "0.7", "--trials", 1)
    assert ended == 2
    assert "another run is writing into it; wait for it, or name another folder" in capsys.readouterr().err
    assert [path.name for path in out.iterdir()] == [".lock"]


def tune(given, output, *arguments):
    return main(["tune", *given, "--samples", "6", "-o", str(output), *map(str, arguments)])


def test_tune_writes_a_configuration_that_every_command_takes(given, tmp_path, capsys):
    out = tmp_path / "out"
    assert tune(given, out, "--target-macs", "0.7", "--trials", 4) == 0
    result = json.loads((out / "result.json").read_text())
    model = timm.create_model(NAME, num_classes=3, img_size=96)
    config = batvit.BATConfig.load(out / "config.json")
    assert config == batvit.BATConfig.from_dict(result["tuned"]["config"])
    info = batvit.info(batvit.patch(model, config))
    assert info.macs <= 0.7 * info.dense_macs
    assert result["preset"]["gmacs"] == pytest.approx(result["tuned"]["gmacs"], rel=0.2)
    assert result["held_apart"] == 6
    with (out / "front.csv").open(newline="") as file:
        assert batvit.BATConfig.from_dict(json.loads(list(csv.DictReader(file))[-1]["config"])) == config
    assert "on 6 pictures held apart" in capsys.readouterr().out
    assert tune(given, out, "--target-macs", "0.7", "--trials", 5) == 2
    assert "already holds a search; go on with it by --resume" in capsys.readouterr().err
    assert tune(given, out, "--target-macs", "0.7", "--trials", 5, "--resume") == 0
    assert tune(given, out, "--target-macs", "0.6", "--trials", 5, "--resume") == 2
    assert "begun with target_macs = 0.7, and cannot go on with 0.6" in capsys.readouterr().err


def test_tune_for_a_speed_fits_the_time_once_and_says_how_well(given, tmp_path, monkeypatch, capsys):
    # so small a model gains no time: let it take what its MACs promise
    monkeypatch.setattr("batvit.cli.tune.fit_time", lambda dense, configs, images: fit_macs(dense, configs))
    out = tmp_path / "out"
    assert tune(given, out, "--target-speedup", "1.1", "--trials", 3) == 0
    kept = (out / "time.json").read_text()
    result = json.loads((out / "result.json").read_text())
    assert result["predicted"]["cost"] <= 1 / 1.1
    assert result["time_error"] == pytest.approx(result["predicted"]["cost"] * result["tuned"]["speedup"] - 1)
    assert "predicted time within" in capsys.readouterr().out
    assert tune(given, out, "--target-speedup", "1.1", "--trials", 4, "--resume") == 0
    assert (out / "time.json").read_text() == kept


def test_a_budget_that_no_trial_meets_names_the_nearest(given, tmp_path, capsys):
    assert tune(given, tmp_path / "out", "--target-macs", "0.01", "--trials", 2) == 2
    assert "no configuration tried is within the budget; the leanest costs 0." in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (("--target-speedup", "0.9"), "--target-speedup must be above 1, got 0.9"),
        (("--max-drop", "0.5"), "--max-drop is about accuracy, and needs labels; add --labels"),
        (("--target-macs", "100G"), "--target-macs must be below the 0."),
        (("--target-macs", "0.5", "--minutes", "0"), "--minutes must be above 0, got 0.0"),
        (("--target-macs", "0.5", "--samples", "7"), "has 12 pictures, --samples 7 and --held-apart 7 need 14; lower them"),
    ],
)
def test_tune_refuses(given, tmp_path, capsys, arguments, reason):
    assert tune(given, tmp_path / "out", *arguments) == 2
    out, err = capsys.readouterr()
    assert reason in err
    assert err.count("\n") == 1
    assert out == ""
    assert not (tmp_path / "out" / "config.json").exists()
