"""batvit demo: offline, from nothing to a table, a picture and weights."""

import json
from dataclasses import replace

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from timm.models import VisionTransformer

import batvit
from batvit.cli import demo as command_of_demo
from batvit.cli import main
from batvit.data.digits import digits
from batvit.testing import demo

FILES = [
    "dense.safetensors",
    "fine-tuned-0.5.batvit.json",
    "fine-tuned-0.5.safetensors",
    "fine-tuned-0.7.batvit.json",
    "fine-tuned-0.7.safetensors",
    "groups.png",
]
ROWS = [
    "dense",
    "training-free, keep 0.7",
    "training-free, keep 0.5",
    "fine-tuned, keep 0.7",
    "fine-tuned, keep 0.5",
]


@pytest.fixture(autouse=True)
def _small(monkeypatch):
    threads = torch.get_num_threads()
    monkeypatch.setitem(demo.ARCHITECTURE, "embed_dim", 16)
    monkeypatch.setitem(demo.ARCHITECTURE, "depth", 4)
    monkeypatch.setattr(demo, "ROUNDS", 1)
    monkeypatch.setattr(demo, "digits", few_digits)
    monkeypatch.setenv("KINETO_LOG_LEVEL", "99")
    yield
    torch.set_num_threads(threads)


def few_digits(*args, **kwargs):
    train, val = digits(*args, **kwargs)
    return tuple(
        replace(part, scans=part.scans[:n], labels=part.labels[:n])
        for part, n in ((train, 128), (val, 64))
    )


def test_it_shows_what_the_library_does_and_can_be_run_again(tmp_path, capsys):
    output, result = tmp_path / "demo", tmp_path / "demo.json"
    command = [
        "demo",
        "--epochs",
        "1",
        "--threads",
        "1",
        "--output",
        str(output),
        "--json",
        str(result),
    ]
    assert main(command) == 0
    out, err = capsys.readouterr()
    assert err == ""
    assert "128 handwritten digits" in out
    assert "1 epoch, 1 CPU thread." in out
    assert [
        line.split("  ")[0] for line in out.splitlines() if line.startswith(tuple(ROWS))
    ] == ROWS
    assert len(out.splitlines()) < 16

    found = json.loads(result.read_text())
    assert [row["name"] for row in found["results"]] == ROWS
    dense, *reduced = found["results"]
    assert dense["samples"] == 64
    assert all(row["mac_ratio"] > 1.3 and row["speedup"] > 0 for row in reduced)

    assert sorted(path.name for path in output.iterdir()) == FILES
    with Image.open(output / "groups.png") as picture:
        assert picture.width > picture.height / 2 > 200
    weights = load_file(output / "fine-tuned-0.5.safetensors")
    VisionTransformer(**found["architecture"]).load_state_dict(weights)
    assert batvit.BATConfig.beside(
        output / "fine-tuned-0.5.safetensors"
    ) == batvit.BATConfig.preset("paper", keep_rate=0.5)

    assert main(command) == 0
    again = json.loads(result.read_text())
    assert [row["top1"] for row in again["results"]] == [row["top1"] for row in found["results"]]
    assert all(
        torch.equal(value, weights[key])
        for key, value in load_file(output / "fine-tuned-0.5.safetensors").items()
    )


def test_an_output_that_is_a_file_is_refused_before_any_work(tmp_path, capsys):
    (tmp_path / "file").write_text("mine")
    assert main(["demo", "--output", str(tmp_path / "file")]) == 2
    assert "it is a file; name a folder" in capsys.readouterr().err
    assert (tmp_path / "file").read_text() == "mine"


def test_the_model_of_the_demo_has_enough_patches_and_blocks():
    assert (demo.ARCHITECTURE["img_size"] // demo.ARCHITECTURE["patch_size"]) ** 2 == 64
    assert demo.FROM_SCRATCH.epochs > demo.FINE_TUNING.epochs
    assert demo.FROM_SCRATCH.epochs == command_of_demo.EPOCHS
