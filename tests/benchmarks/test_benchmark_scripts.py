"""The scripts behind the tables of docs/results.md run as they are."""

import json
import re

import pytest
import timm
import torch

import batvit
from batvit.budget import Family

MODEL = "deit_tiny_patch16_224"


@pytest.fixture
def run(imported, monkeypatch, capsys):
    def script(name, *arguments):
        monkeypatch.setattr("sys.argv", [name, *map(str, arguments)])
        imported(f"benchmarks/{name}.py").main()
        return capsys.readouterr().out

    return script


def test_the_bound_lets_as_many_tokens_go_as_bat_does(run, imported):
    found = run("bound", MODEL, "--engines", "eager", "--rounds", 1, "--threads", 1)
    heading, row = found.splitlines()[0], found.splitlines()[-1]
    assert heading == f"{MODEL}, keep 0.7, batch 1, 1 threads: MAC ratio 1.54"
    assert re.fullmatch(r"\| eager \| fp32 \| \d+\.\d\d \| \d+\.\d\d \|", row)
    reduced = batvit.patch(timm.create_model(MODEL, depth=4).eval(), keep_rate=0.5, blocks=(1, 2))
    left, masks = [], []
    for model in (reduced, imported("benchmarks/bound.py").cut(reduced)):
        model.blocks[-1].mlp.register_forward_hook(
            lambda _, inputs, __: left.append(inputs[0].shape[1])
        )
        model.blocks[-1].attn.register_forward_pre_hook(
            lambda _, args, kwargs: masks.append(kwargs["attn_mask"].shape), with_kwargs=True
        )
        model(torch.zeros(1, 3, 224, 224))
    assert left[0] == left[1] < 197
    # attention with a bias is another kernel
    assert masks[0] == masks[1] == (1, 1, 1, left[0])


@pytest.mark.parametrize("name", ["bat", "bat_gradual"])
def test_every_row_about_the_presets_is_of_another_configuration(imported, name):
    presets = imported("benchmarks/presets.py")
    family = Family.of(name, timm.create_model(MODEL))
    rows = [presets.otherwise(family, fields).at(0.5) for fields in presets.OTHERWISE.values()]
    assert rows[0] == family.at(0.5)
    # what a preset has already: bat full sizes, pairs and no importance; gradual its power
    assert len(rows) - len(set(rows)) == {"bat": 3, "bat_gradual": 1}[name]


def test_a_step_is_timed(run):
    arguments = ("--batch-size", 2, "--precisions", "fp32", "--rounds", 1, "--threads", 1)
    found = run("train_step", MODEL, *arguments)
    assert found.startswith(f"{MODEL}, paper, keep 0.7, batch 2")
    assert re.fullmatch(
        r"\| fp32 \| [\d,]+ \[.*\] \| [\d,]+ \[.*\] \| [\d.]+ \|", found.splitlines()[-1]
    )


def test_speed_has_a_row_for_each_setting(run):
    arguments = ("--keep-rates", 0.7, 0.5, "--batch-sizes", 1, "--rounds", 1, "--threads", 1)
    with torch.compiler.set_stance("force_eager"):
        found = run("speed", MODEL, *arguments)
    rows = [line for line in found.splitlines() if line.startswith(f"| {MODEL} | 0.")]
    assert len(rows) == 2


def test_a_result_is_kept_with_its_commit_and_machine(imported, monkeypatch, tmp_path):
    results = imported("benchmarks/results.py")
    kept = tmp_path / "bound.json"
    kept.write_text((results.RESULTS / "bound.json").read_text())
    monkeypatch.setattr(results, "RESULTS", tmp_path)
    monkeypatch.setattr(results, "_commit", lambda: "abc1234")
    results.show(
        "bound", [{"engine": "eager", "precision": "fp32", "bat": 1.2, "bound": 1.3}], keep=True
    )
    found = json.loads(kept.read_text())
    assert found["rows"][0]["bat"] == 1.2
    assert found["commit"] == "abc1234"
    assert "cores of" in found["hardware"]
    assert f"torch {torch.__version__.partition('+')[0]}" in found["software"]
    assert found["title"] == "The bound: tokens cut off at no cost"


def test_operations_are_counted(run):
    found = run("profile_ops", MODEL, "--batch-size", 1, "--rounds", 1, "--threads", 1)
    assert "| addmm |" in found
    assert found.splitlines()[-1].startswith("| all |")


def test_an_accelerators_table_has_both_plans_at_equal_macs(run):
    with torch.compiler.set_stance("force_eager"):
        arguments = (
            "--batch-size",
            1,
            "--keep-rate",
            0.7,
            "--precision",
            "fp32",
            "--device",
            "cpu",
            "--rounds",
            1,
        )
        found = run("gpu", MODEL, *arguments)
    bat, tome = (
        line.strip("| ").split(" | ")
        for line in found.splitlines()
        if line.startswith(("| BAT", "| ToMe"))
    )
    assert float(bat[3]) == pytest.approx(float(tome[3]), rel=0.02)
    for row in (bat, tome):
        eager, base, taken, speedup, ratio, share = map(float, row[4:])
        # images/s are printed without decimals, ratios with two
        base = max(eager, base)
        assert (taken - 0.5) / (base + 0.5) - 0.01 <= speedup <= (taken + 0.5) / (base - 0.5) + 0.01
        assert share == pytest.approx(speedup / ratio, abs=0.02)
