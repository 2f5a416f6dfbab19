"""batvit tune: what it writes, how it goes on, and what it refuses."""

import csv
import itertools
import json
import operator
import os
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import load_file, save_file

import batvit
from batvit.backbones.patch import reduced_copy
from batvit.backbones.registry import anatomy_of
from batvit.cli import main
from batvit.measure.clock import quartiles
from batvit.measure.macs import count_macs
from batvit.measure.speed import SpeedComparison, Timing
from batvit.storage.run_folder import claimed
from batvit.tune import search as searches
from batvit.tune.cost_model import Sample, counted
from batvit.tune.finalists import Measured
from batvit.tune.objective import TuningSet
from batvit.tune.space import Candidate, varied
from batvit.tune.trials import FIRST_TRIALS, JOURNAL, finished, studies

NAME = "test_vit"


@pytest.fixture(autouse=True, scope="module")
def _times():
    """So small a model takes the time that it takes: one try, and whatever comes out is taken."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("batvit.budget.TIME_TOLERANCE", 1e9)
        patched.setattr("batvit.budget.ATTEMPTS", 1)
        yield


@pytest.fixture(scope="module")
def fitted():
    """What the model's configurations cost in MACs."""
    model = timm.create_model(NAME, num_classes=3, img_size=96)
    return counted(model, varied(anatomy_of(model), 13))


@pytest.fixture(autouse=True)
def _quick(monkeypatch, fitted):
    """Nothing is fitted anew, and nothing is timed for long."""
    monkeypatch.setattr("batvit.cli.tune.counted", lambda dense, configs: list(fitted))
    monkeypatch.setattr("batvit.cli.tune.ROUNDS", 1)


@pytest.fixture
def slower(monkeypatch, fitted):
    """Time is what MACs promise, and when measured after the first, a twentieth more."""

    def share(dense, reduced):
        return 1.05 * count_macs(reduced, (3, 96, 96))[""] / count_macs(dense, (3, 96, 96))[""]

    def compare(dense, reduced, images, *, rounds):
        macs = [count_macs(model, tuple(images.shape[1:]))[""] for model in (dense, reduced)]
        taken = share(dense, reduced)
        timings = (Timing(1, time, 0.0, 1.0, None) for time in (1.0, taken))
        return SpeedComparison(*timings, *macs, 1, rounds, quartiles([1 / taken]))

    def timed(dense, configs, images, *, rounds=7, part=0):
        return (
            [Sample(each, share(dense, reduced_copy(dense, each)), part) for each in configs]
            if part
            else list(fitted)
        )

    monkeypatch.setattr("batvit.cli.tune.benchmark", compare)
    monkeypatch.setattr("batvit.cli.tune.timed", timed)
    # three parts, however few the trials are
    monkeypatch.setattr("batvit.cli.tune.FIRST_TRIALS", 1)


@pytest.fixture
def alone(monkeypatch):
    """No preset is brought to the same cost."""
    monkeypatch.setattr("batvit.cli.tune.preset_beside", lambda *given, timed: (None, None, []))


def tune(given, output, *arguments):
    return main(["tune", *given, "--samples", "6", "-o", str(output), *map(str, arguments)])


@pytest.mark.parametrize(("keep_rate", "wins"), [(1.0, True), (0.01, False)])
def test_a_preset_that_loses_less_is_written_instead(
    given, tmp_path, monkeypatch, capsys, keep_rate, wins
):
    preset = batvit.BATConfig.preset("paper", keep_rate=keep_rate, blocks=(0,))

    def beside(dense, final, measure, *, timed):
        return "MACs", Measured(preset, measure(preset), 0.7), []

    monkeypatch.setattr("batvit.cli.tune.preset_beside", beside)
    out = tmp_path / "out"
    assert tune(given, out, "--target-macs", "0.7", "--trials", 3) == 0
    found, result = (
        batvit.BATConfig.load(out / "config.json"),
        json.loads((out / "result.json").read_text()),
    )
    assert found == (preset if wins else batvit.BATConfig.from_dict(result["tuned"]["config"]))
    assert ("the preset is written" in capsys.readouterr().out.replace("\n", " ")) == wins


@pytest.mark.parametrize(("share", "wins"), [(0.76, True), (0.9, False)])
def test_a_preset_that_takes_more_time_than_asked_for_is_not_written(
    given, tmp_path, slower, monkeypatch, capsys, share, wins
):
    # it changes nothing, so it loses nothing
    preset = batvit.BATConfig.preset("paper", keep_rate=1.0, blocks=(0,))

    def beside(dense, final, measure, *, timed):
        taken = replace(final.measured, speedups=quartiles([1 / share]))
        return "MACs", Measured(preset, taken, share), []

    monkeypatch.setattr("batvit.cli.tune.preset_beside", beside)
    out = tmp_path / "out"
    assert tune(given, out, "--target-speedup", "1.333", "--trials", 3) == 0
    found, result = (
        batvit.BATConfig.load(out / "config.json"),
        json.loads((out / "result.json").read_text()),
    )
    assert found == (preset if wins else batvit.BATConfig.from_dict(result["tuned"]["config"]))
    told = capsys.readouterr().out.replace("\n", " ")
    assert ("the preset is written" in told) == wins
    # what is told of the time is told of what is written
    assert (f"measured {1 / share:.2f}" in result["verdict"][0]) == wins


def test_a_folder_that_another_writes_into_is_left_alone(given, tmp_path, capsys):
    out = tmp_path / "out"
    with claimed(out):
        assert tune(given, out, "--target-macs", "0.7", "--trials", 1) == 2
    assert (
        "another run is writing into it; wait for it, or name another folder"
        in capsys.readouterr().err
    )
    assert [path.name for path in out.iterdir()] == [".lock"]


def test_tune_writes_a_configuration_that_every_command_takes(given, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("batvit.cli.tune.counted", counted)
    out = tmp_path / "out"
    assert tune(given, out, "--target-macs", "0.7", "--trials", 4) == 0
    result = json.loads((out / "result.json").read_text())
    model = timm.create_model(NAME, num_classes=3, img_size=96)
    config = batvit.BATConfig.load(out / "config.json")
    assert config == batvit.BATConfig.from_dict(result["config"])
    assert result["config"] in (result["tuned"]["config"], result["preset"]["config"])
    info = batvit.info(batvit.patch(model, config))
    assert info.macs <= 0.7 * info.dense_macs
    assert result["preset_at_same"] == "MACs"
    assert result["preset"]["gmacs"] == pytest.approx(result["tuned"]["gmacs"], rel=0.2)
    difference = result["difference"]["loss"]
    assert difference["mean"] == pytest.approx(
        result["tuned"]["loss"] - result["preset"]["loss"], abs=1e-6
    )
    assert difference["low"] <= difference["mean"] <= difference["high"]
    assert result["held_out"] == 6
    with (out / "front.csv").open(newline="") as file:
        front = [
            batvit.BATConfig.from_dict(json.loads(row["config"])) for row in csv.DictReader(file)
        ]
    assert len(front) > 1
    printed = capsys.readouterr().out
    assert "the target is held: asked 0." in printed
    assert "preset, equal MACs" in printed
    assert "on 6 pictures held out tuned is " in printed
    assert " the preset at equal MACs: loss " in printed


def test_tune_goes_on_with_the_same_and_nothing_else(given, tmp_path, monkeypatch, alone, capsys):
    out = tmp_path / "out"
    assert tune(given, out, "--target-macs", "0.7", "--trials", 1) == 0
    assert tune(given, out, "--target-macs", "0.7", "--trials", 2) == 2
    assert "already holds a search; go on with it by --resume" in capsys.readouterr().err
    assert tune(given, out, "--target-macs", "0.7", "--trials", 2, "--resume") == 0
    # nothing is decoded, or shown to the dense model, before
    monkeypatch.setattr(TuningSet, "of", None)
    assert tune(given, out, "--target-macs", "0.6", "--trials", 2, "--resume") == 2
    assert "begun with target_macs = 0.7, and cannot go on with 0.6" in capsys.readouterr().err
    monkeypatch.setattr("batvit.cli.tune.git_commit", lambda: "another")
    assert tune(given, out, "--target-macs", "0.7", "--trials", 2, "--resume") == 2
    assert ", and cannot go on with another" in capsys.readouterr().err


def test_tune_goes_on_with_the_same_weights_and_pictures_alone(
    given, tmp_path, monkeypatch, alone, capsys
):
    weights, data, out = tmp_path / "vit.safetensors", tmp_path / "data", tmp_path / "out"
    shutil.copytree(given[given.index("--data") + 1], data)
    shutil.copy(given[2], weights)
    places = {given[2]: weights, given[given.index("--data") + 1]: data}
    own = [str(places.get(part, part)) for part in given]
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
    assert "begun with weights = " in capsys.readouterr().err


def test_a_picture_that_is_cut_short_can_be_skipped_afterwards(given, tmp_path, alone, capsys):
    place = given.index("--data") + 1
    data, out = tmp_path / "data", tmp_path / "out"
    shutil.copytree(given[place], data)
    path = next(data.rglob("*.png"))
    path.write_bytes(path.read_bytes()[:2000])
    mine = [*given[:place], str(data), *given[place + 1 :]]
    assert tune(mine, out, "--target-macs", "0.7", "--trials", 1) == 2
    assert f"{path.name}: cannot be read as a picture" in capsys.readouterr().err
    assert (
        tune(mine, out, "--target-macs", "0.7", "--trials", 1, "--skip-unreadable", "--held-out", 3)
        == 0
    )
    assert (out / "config.json").is_file()


def test_pictures_without_labels_may_lie_anywhere(given, tmp_path, alone, capsys):
    place = given.index("--data") + 1
    for i, path in enumerate(sorted(Path(given[place]).rglob("*.png"))):
        shutil.copy(path, tmp_path / f"{i}.png")
    flat = [*given[:place], str(tmp_path), *given[place + 1 :]]
    (tmp_path / "runs").mkdir()
    assert tune(flat, tmp_path / "runs" / "out", "--target-macs", "0.7", "--trials", 1) == 0
    capsys.readouterr()
    assert (
        tune(flat, tmp_path / "runs" / "labels", "--target-macs", "0.7", "--trials", 1, "--labels")
        == 2
    )
    assert (
        "lies beside the class folders; put each picture into the folder of its class"
        in capsys.readouterr().err
    )


def test_tune_without_a_preset_that_goes_so_low_says_so(given, tmp_path, monkeypatch, capsys):
    early = Candidate(1, 0, 5, 1.0, 0.5, 0.1, 2, "tokens", "size", True)
    monkeypatch.setattr(Candidate, "suggest", lambda trial, depth: early)
    out = tmp_path / "out"
    assert tune(given, out, "--target-macs", "0.33", "--trials", 1) == 0
    result = json.loads((out / "result.json").read_text())
    assert (result["preset"], result["preset_at_same"]) == (None, None)
    assert result["tuned"]["gmacs"] > 0
    printed = capsys.readouterr().out
    assert "no preset at equal MACs: bat cannot go down to 0.3" in printed
    assert "preset, equal" not in printed


def test_tune_for_a_speed_corrects_the_time_by_what_it_measures(
    given, tmp_path, slower, monkeypatch, capsys
):
    # so few trials are one part
    monkeypatch.setattr("batvit.cli.tune.FIRST_TRIALS", FIRST_TRIALS)
    out = tmp_path / "out"
    assert tune(given, out, "--target-speedup", "1.3", "--trials", 3) == 0
    result = json.loads((out / "result.json").read_text())
    assert {sample["part"] for sample in json.loads((out / "time.json").read_text())} == {0}
    assert result["fitted_error"] == pytest.approx(1 / 1.05 - 1, abs=0.005)
    assert abs(result["time_error"]) < 0.005
    assert result["tuned"]["speedup"] == pytest.approx(1.3, rel=0.03)
    assert result["preset_at_same"] == "time"
    printed = capsys.readouterr().out
    assert "the target is held: asked 1.30, measured 1.3" in printed
    assert " % of the measured one; 4." in printed


def test_tune_for_a_speed_knows_the_time_better_from_part_to_part(
    given, tmp_path, slower, monkeypatch, capsys
):
    out = tmp_path / "out"
    assert tune(given, out, "--target-speedup", "1.3", "--trials", 3) == 0
    kept = (out / "time.json").read_bytes()
    result = json.loads((out / "result.json").read_text())
    # what the first two of three parts found was timed, and made the third know better
    samples = json.loads(kept)
    assert [sample["part"] for sample in samples] == sorted(sample["part"] for sample in samples)
    assert {sample["part"] for sample in samples} == {0, 1, 2}
    assert abs(result["fitted_error"]) < 0.02
    assert abs(result["time_error"]) < 0.02
    assert result["tuned"]["speedup"] == pytest.approx(1.3, rel=0.03)
    assert result["preset_at_same"] == "time"
    assert batvit.BATConfig.load(out / "config.json") == batvit.BATConfig.from_dict(
        result["config"]
    )
    printed = capsys.readouterr().out
    assert "the target is held: asked 1.30, measured 1." in printed
    # nothing is timed again
    monkeypatch.setattr("batvit.cli.tune.timed", None)
    assert tune(given, out, "--target-speedup", "1.3", "--trials", 3, "--resume") == 0
    assert (out / "time.json").read_bytes() == kept


def test_a_time_is_not_taken_to_another_machine(given, tmp_path, slower, alone, capsys):
    out = tmp_path / "out"
    assert tune(given, out, "--target-speedup", "1.3", "--trials", 1) == 0
    about = json.loads((out / "about.json").read_text())
    (out / "about.json").write_text(json.dumps(about | {"cpu": "Another"}))
    assert tune(given, out, "--target-speedup", "1.3", "--trials", 3, "--resume") == 2
    assert "begun with cpu = Another, and cannot go on with " in capsys.readouterr().err


def test_tune_within_a_drop_says_whether_it_holds(given, tmp_path, slower, alone, capsys):
    out = tmp_path / "out"
    assert tune(given, out, "--labels", "--max-drop", "100", "--trials", 3) == 0
    assert "the limit holds on the pictures held out: lost " in capsys.readouterr().out
    assert json.loads((out / "result.json").read_text())["tuned"]["drop"] <= 100


def test_an_interrupt_leaves_the_best_so_far(given, tmp_path, monkeypatch, capfd):
    number, judge = itertools.count(), searches.judge

    def interrupted(*arguments):
        if next(number) == 2:
            raise KeyboardInterrupt
        return judge(*arguments)

    out = tmp_path / "out"
    with monkeypatch.context() as patched:
        patched.setattr(searches, "judge", interrupted)
        assert tune(given, out, "--target-macs", "0.8", "--trials", 9) == 130
    assert "Traceback" not in capfd.readouterr().err
    assert batvit.BATConfig.load(out / "config.json").blocks
    assert not (out / "result.json").exists()


def interrupt(monkeypatch, name, at):
    """Ctrl-C when a function of the command is called for the so-and-so-many-th time; and nothing more after it."""
    number, whole = itertools.count(), operator.attrgetter(name)(batvit)

    def interrupted(*arguments, **more):
        if next(number) == at:
            raise KeyboardInterrupt
        return whole(*arguments, **more)

    monkeypatch.setattr(f"batvit.{name}", interrupted)


def test_an_interrupt_in_the_second_part_loses_nothing(given, tmp_path, slower, alone, monkeypatch):
    out = tmp_path / "out"
    arguments = ("--target-speedup", "1.3", "--trials", 6)
    interrupt(monkeypatch, "tune.search.judge", 2)
    assert tune(given, out, *arguments) == 130
    begun = [study.trials for study in studies(out)]
    assert len(begun) == 2
    assert batvit.BATConfig.load(out / "config.json").blocks
    assert tune(given, out, *arguments, "--resume") == 0
    known = studies(out)
    assert sum(map(finished, known)) == 6
    assert known[0].trials == begun[0]
    assert [trial.value for trial in known[1].trials[:1]] == [trial.value for trial in begun[1][:1]]
    assert {sample["part"] for sample in json.loads((out / "time.json").read_text())} == {0, 1, 2}


def test_an_interrupt_before_anything_is_tried_leaves_nothing_to_go_on_with(
    given, tmp_path, slower, alone, monkeypatch
):
    out = tmp_path / "out"
    with monkeypatch.context() as patched:
        interrupt(patched, "cli.tune.timed", 0)
        assert tune(given, out, "--target-speedup", "1.3", "--trials", 1) == 130
    assert tune(given, out, "--target-speedup", "1.3", "--trials", 1) == 0


def test_times_without_their_journal_are_taken_again_for_a_new_search(
    given, tmp_path, slower, alone, capsys
):
    out = tmp_path / "out"
    assert tune(given, out, "--target-speedup", "1.3", "--trials", 3) == 0
    (out / JOURNAL).unlink()
    assert tune(given, out, "--target-speedup", "1.3", "--trials", 3) == 0
    assert "the target is held" in capsys.readouterr().out
    assert sum(map(finished, studies(out))) == 3


def test_a_dense_model_that_is_not_finite_is_refused_before_the_search(given, tmp_path, capsys):
    weights = load_file(given[2])
    weights["head.bias"] = torch.full((3,), float("nan"))
    save_file(weights, tmp_path / "nan.safetensors")
    given = (*given[:2], str(tmp_path / "nan.safetensors"), *given[3:])
    assert tune(given, tmp_path / "out", "--target-macs", "0.7", "--trials", 1) == 2
    assert "the dense model's logits are not finite" in capsys.readouterr().err
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
        (("--target-speedup", "0.9"), "--target-speedup must be above 1 and below 100, got 0.9"),
        (("--target-speedup", "150"), "--target-speedup must be above 1 and below 100, got 150"),
        (("--max-drop", "0.5"), "--max-drop is about accuracy, and needs labels; add --labels"),
        (("--target-macs", "100G"), "--target-macs must be below the 0."),
        (("--target-macs", "0.5", "--minutes", "0"), "--minutes must be above 0, got 0.0"),
        (
            ("--target-macs", "0.5", "--samples", "7"),
            "has 12 pictures, --samples 7 and --held-out 7 need 14; lower them",
        ),
    ],
)
def test_tune_refuses(given, tmp_path, capsys, arguments, reason):
    assert tune(given, tmp_path / "out", *arguments) == 2
    out, err = capsys.readouterr()
    assert reason in err
    assert err.count("\n") == 1
    assert out == ""
    assert not (tmp_path / "out").exists()


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
