"""batvit compare: what it writes, how it goes on, and what it refuses."""

import csv
import inspect
import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

import batvit
from batvit import plans
from batvit.budget import contenders, macs_of
from batvit.cli import compare as command
from batvit.cli import main
from batvit.compare import comparison, stopwatch
from batvit.data.folder import Pictures
from batvit.inspection import groups
from batvit.plans import Plan
from batvit.storage.run_folder import claimed


def compare(given, output, *arguments):
    quick = ("--plans", "random", "--targets", "0.8", "--rounds", "1", "--drawn", "0")
    return main(["compare", *given, *quick, "-o", str(output), *map(str, arguments)])


@pytest.fixture(autouse=True, scope="module")
def _times():
    """So small a model takes the time that it takes: one try, and whatever comes out is taken."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("batvit.budget.TIME_TOLERANCE", 1e9)
        patched.setattr("batvit.compare.steps.TIME_TOLERANCE", 1e9)
        patched.setattr("batvit.budget.ATTEMPTS", 1)
        patched.setattr("batvit.budget.HALVINGS", 5)
        # all are of one model, whose MACs are counted once for each configuration; a plan may be
        # replaced
        known = {}

        def counted(model, config):
            key = (config, config and id(plans.PLANS[config.method]))
            if key not in known:
                known[key] = macs_of(model, config)
            return known[key]

        patched.setattr("batvit.budget.macs_of", counted)
        patched.setattr("batvit.compare.stopwatch.macs_of", counted)
        yield


@pytest.fixture(scope="module")
def done(given, tmp_path_factory):
    """A whole comparison."""
    out = tmp_path_factory.mktemp("done") / "out"
    assert compare(given, out, "--plans", "bat,random", "--drawn", "1") == 0
    return out


@pytest.fixture
def again(done, tmp_path):
    """A copy of it, to go on with."""
    return shutil.copytree(done, tmp_path / "out", ignore=shutil.ignore_patterns(".lock"))


@pytest.fixture
def decoded(monkeypatch):
    """The pictures that were decoded."""
    seen, get = [], Pictures.__getitem__
    monkeypatch.setattr(
        Pictures,
        "__getitem__",
        lambda self, i: seen.append(self.samples[i][0].name) or get(self, i),
    )
    return seen


@pytest.fixture
def unclocked(monkeypatch):
    """Nothing may be fitted or timed any more."""
    for name in ("at_macs", "at_time"):
        monkeypatch.setattr(f"batvit.compare.steps.{name}", None)
    monkeypatch.setattr("batvit.compare.stopwatch.in_turns", None)


def result_of(out):
    def refused(text):
        raise AssertionError(text)

    return json.loads((out / "result.json").read_text(), parse_constant=refused)


def plans_of(out):
    return [(row["plan"], row["at"]) for row in result_of(out)["rows"]]


def both(*names):
    return [(plan, at) for plan in names for at in ("macs", "time")]


def test_everything_is_written_and_agrees(done):
    out = done
    result = result_of(out)
    assert result["samples"] == 12
    assert plans_of(out) == both("bat", "random")
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
    assert [row["plan"] for row in table] == ["dense", "bat", "bat", "random", "random"]
    assert json.loads(table[1]["tokens"]) == result["rows"][0]["tokens"]
    page = (out / "report.html").read_text()
    assert page.count("data:image/png;base64,") == 1 + 2
    assert (out / "pareto.png").read_bytes().startswith(b"\x89PNG")


def test_the_accuracy_is_that_of_eval(given, done, tmp_path):
    found = tmp_path / "found.json"
    row = json.loads((done / "result.json").read_text())["rows"][0]
    (tmp_path / "config.json").write_text(json.dumps(row["config"]))
    assert (
        main(["eval", *given, "--config", str(tmp_path / "config.json"), "--json", str(found)]) == 0
    )
    evaluated = json.loads(found.read_text())
    assert {name: evaluated[name] for name in ("top1", "top5", "agreement")} == pytest.approx(
        {name: row[name] for name in ("top1", "top5", "agreement")}
    )


def test_who_interrupts_the_fitting_keeps_what_is_fitted(given, tmp_path, monkeypatch, capsys):
    out = tmp_path / "out"

    def interrupted(*arguments):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr("batvit.compare.steps.at_time", interrupted)
        assert compare(given, out) == 130
    (before,) = json.loads((out / "progress.json").read_text())["rows"]
    assert compare(given, out) == 2
    assert (
        "already holds a comparison (progress.json); go on with it by --resume"
        in capsys.readouterr().err
    )
    with monkeypatch.context() as patched:
        patched.setattr("batvit.compare.steps.at_macs", None)
        assert compare(given, out, "--resume") == 0
    assert plans_of(out) == both("random")
    assert result_of(out)["rows"][0]["config"] == before["config"]
    printed = capsys.readouterr().out
    assert "at 0.8 of the MACs of the dense model" in printed
    assert "at 0.8 of the measured time of the dense model" in printed


def test_who_interrupts_the_pictures_keeps_what_was_seen(
    given, again, decoded, monkeypatch, request
):
    (again / "scores.safetensors").unlink()
    whole, batches = result_of(again), comparison.loader

    def interrupted(*arguments, **settings):
        yield next(iter(batches(*arguments, **settings)))
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(comparison, "loader", interrupted)
        assert compare(given, again, "--plans", "bat,random", "--resume") == 130
    assert len(decoded) == 5
    request.getfixturevalue("unclocked")
    assert compare(given, again, "--plans", "bat,random", "--resume") == 0
    # each picture once
    assert len(decoded) == 12
    found = result_of(again)
    assert found["rows"] == whole["rows"]
    assert found["dense"] == whole["dense"]


def test_what_was_seen_is_not_decoded_again(given, again, decoded, unclocked):
    assert compare(given, again, "--plans", "bat,random", "--resume") == 0
    assert decoded == []


def test_a_plan_that_is_added_is_timed_beside_the_others(given, again, decoded, monkeypatch):
    before, runs, in_turns = result_of(again), [], stopwatch.in_turns

    def counted(these, *arguments, **settings):
        runs.append(len(these))
        return in_turns(these, *arguments, **settings)

    monkeypatch.setattr(stopwatch, "in_turns", counted)
    assert compare(given, again, "--plans", "topk", "--resume") == 0
    # fitted beside the dense model, then four in one run: in batches and alone, at equal MACs and
    # at equal time
    assert runs == [2, 4, 4, 4, 4]
    assert plans_of(again) == both("bat", "random", "topk")
    assert len(decoded) == 12
    for old, new in zip(before["rows"], result_of(again)["rows"], strict=False):
        assert {name: old[name] for name in ("config", "top1", "kl")} == {
            name: new[name] for name in ("config", "top1", "kl")
        }


def test_what_other_weights_at_the_same_path_made_of_the_pictures_is_not_taken(
    given, decoded, tmp_path
):
    weights = tmp_path / "vit.safetensors"
    mine = (*given[:2], str(weights), *given[3:])
    shutil.copy(given[2], weights)
    out = tmp_path / "mine"
    assert compare(mine, out) == 0
    before = result_of(out)["rows"][0]["kl"]
    save_file({name: 1.5 * value for name, value in load_file(weights).items()}, weights)
    decoded.clear()
    assert compare(mine, out, "--resume") == 0
    assert len(decoded) == 12
    assert result_of(out)["rows"][0]["kl"] != before


def test_a_picture_that_is_cut_short_can_be_skipped_afterwards(given, tmp_path, capsys, request):
    data, out = tmp_path / "data", tmp_path / "out"
    shutil.copytree(given[given.index("--data") + 1], data)
    path = data / "dog" / "0.png"
    path.write_bytes(path.read_bytes()[:2000])
    mine = tuple(
        str(data) if i and given[i - 1] == "--data" else one for i, one in enumerate(given)
    )
    assert compare(mine, out) == 2
    assert "0.png: cannot be read as a picture" in capsys.readouterr().err
    request.getfixturevalue("unclocked")
    assert compare(mine, out, "--resume", "--skip-unreadable") == 0
    assert result_of(out)["samples"] == 11


def breaks(error, when=lambda evidence: True):
    """A plan that fails, and otherwise is topk."""
    plan = plans.PLANS["topk"]

    def wrong(evidence, counts, config):
        if when(evidence):
            raise error
        return plan.decide(evidence, counts, config)

    return Plan(wrong, drops=True)


def test_plans_that_fail_in_any_way_are_named_and_tried_again(given, tmp_path, monkeypatch, capsys):
    def real(evidence):
        return evidence.importance.device.type != "meta"

    seen = []
    broken = {
        "topk": breaks(RuntimeError("this plan\nbreaks")),
        "dpcknn": breaks(IndexError("out of range"), real),
        "kmedoids": breaks(KeyError("x"), lambda evidence: real(evidence) and len(seen) > 5),
    }
    out, get = tmp_path / "out", Pictures.__getitem__
    monkeypatch.setattr(Pictures, "__getitem__", lambda self, i: seen.append(i) or get(self, i))
    with monkeypatch.context() as patched:
        for name, plan in broken.items():
            patched.setitem(plans.PLANS, name, plan)
        patched.setattr(groups, "draw", lambda *arguments: {}["no such"])
        assert compare(given, out, "--plans", "random,topk,dpcknn,kmedoids", "--drawn", "1") == 0
    reasons = {
        "topk": "this plan breaks",
        "dpcknn": "IndexError: out of range",
        "kmedoids": "KeyError: 'x'",
    }
    assert plans_of(out) == both("random")
    told = result_of(out)["failed"]
    assert sorted((one["plan"], one["at"], one["reason"]) for one in told) == sorted(
        (plan, at, reason) for plan, reason in reasons.items() for at in ("macs", "time")
    )
    printed = capsys.readouterr()
    assert "topk at 0.8 of the MACs: this plan breaks" in printed.out
    assert "picture 1: random is not drawn: 'no such'" in printed.err
    assert "KeyError: &#x27;x&#x27;" in (out / "report.html").read_text()
    assert compare(given, out, "--plans", "random,topk", "--resume") == 0
    assert plans_of(out) == both("random", "topk")
    assert result_of(out)["failed"] == []


def test_a_plan_that_fails_before_an_interrupt_leaves_no_gap(given, again, monkeypatch):
    batches, seen = comparison.loader, []
    (again / "scores.safetensors").unlink()

    def interrupted(*arguments, **settings):
        for i, batch in enumerate(batches(*arguments, **settings)):
            if i == 2:
                raise KeyboardInterrupt
            seen.append(i)
            yield batch

    monkeypatch.setitem(
        plans.PLANS, "random", breaks(ValueError("too much"), lambda evidence: len(seen) == 2)
    )
    with monkeypatch.context() as patched:
        patched.setattr(comparison, "loader", interrupted)
        assert compare(given, again, "--plans", "bat,random", "--resume") == 130
    assert compare(given, again, "--plans", "bat,random", "--resume") == 0
    assert plans_of(again) == both("bat")
    assert {one["reason"] for one in result_of(again)["failed"]} == {"too much"}


def test_pictures_are_drawn_at_the_smallest_target_that_was_met(given, tmp_path, capsys):
    out = tmp_path / "out"
    assert compare(given, out, "--targets", "0.8,0.01", "--drawn", "1") == 0
    assert "random cannot go down to 0.01 of the MACs; the nearest is 0." in capsys.readouterr().out
    assert (out / "report.html").read_text().count("data:image/png;base64,") == 1 + 1


def test_a_target_out_of_reach_says_the_nearest(given, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("batvit.budget.TIME_TOLERANCE", 0.075)
    assert compare(given, tmp_path / "out", "--targets", "0.01", "--plans", "bat") == 2
    assert (
        "no plan meets a target: bat cannot go down to 0.01 of the MACs; the nearest is 0."
        in capsys.readouterr().err
    )


def test_a_dense_model_that_is_not_finite_is_found_at_once(given, tmp_path, capsys, unclocked):
    weights = tmp_path / "vit.safetensors"
    save_file({name: value * torch.nan for name, value in load_file(given[2]).items()}, weights)
    assert compare((*given[:2], str(weights), *given[3:]), tmp_path / "out") == 2
    assert (
        "the dense model: logits are not finite; run it in fp32 or bf16, or check its weights"
        in capsys.readouterr().err
    )


def test_what_another_commit_measured_is_not_taken(given, again, monkeypatch, capsys):
    monkeypatch.setattr("batvit.compare.comparison.git_commit", lambda: "another")
    assert compare(given, again, "--resume") == 2
    assert ", and cannot go on with another" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "begun", "now"), [("cpu", "this one", "another"), ("precision", "fp32", "bf16")]
)
def test_other_machines_and_settings_are_refused(
    given, again, monkeypatch, capsys, name, begun, now
):
    kept = json.loads((again / "progress.json").read_text())
    kept["metadata"]["cpu"] = "this one"
    (again / "progress.json").write_text(json.dumps(kept))
    cpu = "another" if name == "cpu" else "this one"
    monkeypatch.setattr(
        comparison,
        "machine",
        lambda device: (
            {name: kept["metadata"][name] for name in ("gpu", "torch", "threads")} | {"cpu": cpu}
        ),
    )
    assert compare(given, again, "--resume", *(() if name == "cpu" else ("--precision", now))) == 2
    assert f"begun with {name} = {begun}, and cannot go on with {now}" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (("--plans", "bat,tomme"), "unknown plan 'tomme'; there are bat, bat_gradual, topk"),
        (
            ("--targets", "0.5,1.2"),
            "targets are shares of the dense model's cost, in (0, 1), got 1.2",
        ),
    ],
)
def test_compare_refuses(given, tmp_path, capsys, monkeypatch, arguments, reason):
    monkeypatch.setattr("batvit.cli.load_models.load_dense", None)
    assert compare(given, tmp_path / "out", *arguments) == 2
    assert reason in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_targets_are_numbers(given, tmp_path, capsys):
    with pytest.raises(SystemExit) as left:
        compare(given, tmp_path / "out", "--targets", "half")
    assert left.value.code == 2
    assert "expected numbers with commas, got 'half'" in capsys.readouterr().err


def test_a_folder_that_another_writes_into_is_left_alone(given, tmp_path, capsys):
    out = tmp_path / "out"
    with claimed(out):
        assert compare(given, out) == 2
    err = capsys.readouterr().err
    assert err.startswith(f"batvit compare: {out}: another run is writing into it; wait for it")
    assert [path.name for path in out.iterdir()] == [".lock"]


def test_the_help_names_all_plans_and_the_default_targets():
    assert contenders() == command.PLANS
    defaults = inspect.signature(comparison.run).parameters
    assert defaults["targets"].default == command.TARGETS
