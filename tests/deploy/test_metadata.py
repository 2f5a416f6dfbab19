"""What a file says of its model: read as it was written, and refused if it is anything else."""

import html
import json
import shutil
from pathlib import Path

import onnx
import pytest
import torch

from batvit.deploy.load import load_engine
from batvit.deploy.metadata import ExportMetadata

graphs = pytest.mark.unchecked
SUFFIXES = (".onnx", ".xml", ".pt2")
IMAGES = torch.zeros(1, 3, 32, 32)


def test_a_metadata_is_what_it_was_after_reading():
    metadata = ExportMetadata(
        model="m",
        config={"keep_rate": 0.5},
        macs=1,
        dense_macs=2,
        param_count=3,
        num_classes=4,
        int8=True,
        input_size=(3, 5, 6),
        mean=(0.1, 0.2, 0.3),
        std=(1.0, 2.0, 3.0),
        interpolation="bicubic",
        crop_pct=0.9,
        crop_mode="center",
    )
    assert ExportMetadata.from_json(metadata.to_json(), Path("x")) == metadata


def fields_of(files):
    return json.loads(onnx.load(files / "good.onnx").metadata_props[0].value)


def with_metadata(files, path, text, rewrite):
    """Write a file, otherwise valid, whose metadata are any text, or missing."""
    if path.suffix == ".onnx":
        model = onnx.load(files / "good.onnx")
        del model.metadata_props[:]
        if text is not None:
            onnx.helper.set_model_props(model, {"batvit": text})
        onnx.save(model, path)
    elif path.suffix == ".xml":
        before = (files / "good.xml").read_text()
        start = before.index("<batvit ")
        end = before.index("/>", start) + 2
        element = "" if text is None else f'<batvit value="{html.escape(text)}" />'
        path.write_text(before[:start] + element + before[end:])
        shutil.copy(files / "good.bin", path.with_suffix(".bin"))
    else:
        rewrite(
            files / "good.pt2", path, {"extra/batvit.json": None if text is None else text.encode()}
        )


TEXTS = {
    "missing": None,
    "empty": "",
    "no JSON": "hello",
    "a list": "[1, 2]",
    "a number": "7",
    "null": "null",
    "deep": "[" * 100_000 + "]" * 100_000,
    "deep fields": '{"a":' * 100_000 + "1" + "}" * 100_000,
    "many digits": '{"macs": ' + "9" * 5000 + "}",
}
FIELDS = {
    "negative": {"macs": -1},
    "zero": {"param_count": 0},
    "a share of a class": {"num_classes": 7.5},
    "not a number": {"dense_macs": float("nan")},
    "two sizes": {"input_size": [3, 32]},
    "letters for a size": {"input_size": "abc"},
    "no list": {"mean": 0.5},
    "letters for a mean": {"mean": ["a", "b", "c"]},
    "one mean": {"mean": [0.5]},
    "no deviation": {"std": [0, 0, 0]},
    "infinite deviation": {"std": [float("inf"), 1, 1]},
    "letters for a crop": {"crop_pct": "much"},
    "no crop": {"crop_pct": 0},
    "unknown field": {"more": 1},
    "unknown interpolation": {"interpolation": "cubic"},
    "unknown crop": {"crop_mode": "some"},
}


@graphs
@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_rewritten_card_is_read(files, tmp_path, suffix, rewrite):
    text = json.dumps(fields_of(files) | {"model": 'a "name" & <more>'})
    with_metadata(files, tmp_path / f"x{suffix}", text, rewrite)
    engine = load_engine(tmp_path / f"x{suffix}")
    assert engine.metadata.model == 'a "name" & <more>'
    assert torch.equal(engine(IMAGES), load_engine(files / f"good{suffix}")(IMAGES))


@graphs
@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("what", [*TEXTS, *FIELDS, "lacks a field"])
def test_a_card_that_is_none_is_refused(files, tmp_path, refuses, rewrite, suffix, what):
    if what in TEXTS:
        text = TEXTS[what]
    elif what in FIELDS:
        text = json.dumps(fields_of(files) | FIELDS[what])
    else:
        text = json.dumps(
            {name: value for name, value in fields_of(files).items() if name != "macs"}
        )
    path = tmp_path / f"x{suffix}"
    with_metadata(files, path, text, rewrite)
    said = refuses(path)
    assert "not a model that batvit exported (" in said
    assert said.endswith("; write it with batvit export")
    assert len(said) < 500
