"""Exported files come from anywhere: one line for everything that is no good, and no code of theirs is run."""

import contextlib
import html
import io
import json
import logging
import os
import pickle
import shutil
import zipfile

import numpy as np
import onnx
import openvino
import pytest
import timm
import torch

from batvit.deploy.export import export
from batvit.deploy.load import load_engine
from batvit.testing.run_contract import randomised

pytestmark = pytest.mark.unchecked
SUFFIXES = (".onnx", ".xml", ".pt2")
IMAGES = torch.zeros(1, 3, 32, 32)
BF16 = "BF16" in openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """A folder with one dense model in each format."""
    folder = tmp_path_factory.mktemp("files")
    settings = {"img_size": 32, "depth": 1, "embed_dim": 48, "num_heads": 3, "num_classes": 7}
    model = randomised(timm.create_model("deit_tiny_patch16_224", **settings))
    for suffix in SUFFIXES:
        export(model, folder / f"good{suffix}")
    return folder


@pytest.fixture
def refuses():
    """Check that loading ends with one line; give it."""

    def check(path, kind=ValueError, **settings):
        with pytest.raises(kind) as caught:
            load_engine(path, **settings)
        message = str(caught.value)
        assert "\n" not in message
        assert str(path) in message
        return message

    return check


# what the card says


def card_of(files):
    return json.loads(onnx.load(files / "good.onnx").metadata_props[0].value)


def with_card(files, path, text):
    """Write a file, otherwise valid, whose card is any text, or missing."""
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
        rewritten(
            files / "good.pt2", path, {"extra/batvit.json": None if text is None else text.encode()}
        )


def rewritten(source, target, contents):
    """Copy an archive: other contents, by the end of their names, replace, add or (None) remove."""
    with zipfile.ZipFile(source) as before, zipfile.ZipFile(target, "w") as after:
        root = before.namelist()[0].split("/")[0]
        kept = {name: before.read(name) for name in before.namelist()}
        for name, content in (
            kept | {f"{root}/{end}": content for end, content in contents.items()}
        ).items():
            if content is not None:
                after.writestr(name, content)


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


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_rewritten_card_is_read(files, tmp_path, suffix):
    with_card(
        files, tmp_path / f"x{suffix}", json.dumps(card_of(files) | {"model": 'a "name" & <more>'})
    )
    engine = load_engine(tmp_path / f"x{suffix}")
    assert engine.card.model == 'a "name" & <more>'
    assert torch.equal(engine(IMAGES), load_engine(files / f"good{suffix}")(IMAGES))


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("what", [*TEXTS, *FIELDS, "lacks a field"])
def test_a_card_that_is_none_is_refused(files, tmp_path, refuses, suffix, what):
    if what in TEXTS:
        text = TEXTS[what]
    elif what in FIELDS:
        text = json.dumps(card_of(files) | FIELDS[what])
    else:
        text = json.dumps({name: value for name, value in card_of(files).items() if name != "macs"})
    path = tmp_path / f"x{suffix}"
    with_card(files, path, text)
    said = refuses(path)
    assert "not a model that batvit exported (" in said
    assert said.endswith("; write it with batvit export")
    assert len(said) < 500


# files that are cut, empty or something else


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("what", ["cut", "empty", "text"])
def test_a_broken_file_is_refused(files, tmp_path, refuses, capfd, suffix, what):
    content = (files / f"good{suffix}").read_bytes()
    path = tmp_path / f"x{suffix}"
    path.write_bytes({"cut": content[: len(content) // 2], "empty": b"", "text": b"hello"}[what])
    assert "cannot be read (" in refuses(path)
    assert "Traceback" not in capfd.readouterr().err


@pytest.mark.parametrize("content", [None, b"", b"\0" * 100])
def test_weights_that_are_missing_or_cut_are_refused(files, tmp_path, refuses, content):
    shutil.copy(files / "good.xml", tmp_path / "x.xml")
    if content is not None:
        (tmp_path / "x.bin").write_bytes(content)
    assert "cannot be read (" in refuses(tmp_path / "x.xml")


# code in a file


class Payload:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


def saved(path):
    buffer = io.BytesIO()
    torch.save(Payload(path), buffer)
    return buffer.getvalue()


def changed(files, name, change):
    with zipfile.ZipFile(files / "good.pt2") as archive:
        return change(archive.read(f"good/{name}").decode()).encode()


def evil(files, what, marker):
    """Records that make torch.export.load run code, each by another door."""
    weights, constants = (
        "data/weights/model_weights_config.json",
        "data/constants/model_constants_config.json",
    )
    graph = "models/model.json"
    constant = '{{"config": {{"x": {{"path_name": "{}", "is_param": false, "use_pickle": true, "tensor_meta": null}}}}}}'
    code = f"__import__('os').mkdir('{marker}')"
    if what == "weight":
        config = changed(
            files,
            weights,
            lambda text: text.replace('"use_pickle": false', '"use_pickle": true', 1),
        )
        return {weights: config, "data/weights/weight_0": saved(marker)}
    if what == "old weights":
        return {weights: None, "data/weights/model.pt": saved(marker)}
    if what == "images":
        return {"data/sample_inputs/model.pt": saved(marker)}
    if what == "constant":
        return {
            constants: constant.format("tensor_0").encode(),
            "data/constants/tensor_0": saved(marker),
        }
    if what == "object":
        return {
            constants: constant.format("custom_obj_0").encode(),
            "data/constants/custom_obj_0": saved(marker),
        }
    if what == "opaque":
        payload = pickle.dumps(Payload(marker))
        return {
            constants: constant.format("opaque_obj_0").encode(),
            "data/constants/opaque_obj_0": payload,
        }
    if what == "expression":
        symbol = "Symbol('s34', positive=True, integer=True)"
        found = changed(files, graph, lambda text: text.replace(symbol, code))
        assert code.encode() in found
        return {graph: found}
    if what == "guards":
        # of a name that is an argument's, as torch writes them
        return {
            graph: changed(
                files, graph, lambda text: json.dumps(json.loads(text) | {"guards_code": [code]})
            )
        }
    if what == "library":
        return {"data/aotinductor/model/model.so": b"no library"}
    if what == "no graph":
        return {graph: b"hello"}
    if what == "long":
        long = changed(files, graph, lambda text: text.replace("Symbol('s34'", "1" * 50_000 + "!"))
        return {graph: long}
    if what == "second graph":
        return {
            "models/other.json": changed(
                files, graph, lambda text: text.replace("Symbol('s", f"{code}('s")
            )
        }
    assert what == "operator"
    return {
        graph: changed(
            files,
            graph,
            lambda text: text.replace("torch.ops.aten.conv2d.default", "torch.os.mkdir"),
        )
    }


DOORS = (
    "weight",
    "old weights",
    "images",
    "constant",
    "object",
    "opaque",
    "expression",
    "guards",
    "library",
    "second graph",
    "operator",
)


@pytest.mark.parametrize("what", [*DOORS, "no graph", "long"])
def test_code_in_a_file_is_not_run(files, tmp_path, refuses, what):
    marker = tmp_path / "marker"
    path = tmp_path / "x.pt2"
    rewritten(files / "good.pt2", path, evil(files, what, marker))
    before = dict(os.environ)
    assert "cannot be read (" in refuses(path)
    assert not marker.exists()
    assert dict(os.environ) == before


@pytest.mark.parametrize("what", ["weight", "opaque", "expression", "guards"])
def test_the_payloads_would_run(files, tmp_path, what):
    marker = tmp_path / "marker"
    rewritten(files / "good.pt2", tmp_path / "x.pt2", evil(files, what, marker))
    with contextlib.suppress(Exception):
        torch.export.load(tmp_path / "x.pt2").module()(IMAGES)
    assert marker.is_dir()


def test_a_file_of_an_older_torch_is_not_taken(files, tmp_path, refuses):
    """It would be read by another door, which trusts its expressions too."""
    with zipfile.ZipFile(tmp_path / "x.pt2", "w") as archive:
        archive.writestr("version", "8.14")
    refuses(tmp_path / "x.pt2")


def test_torch_says_what_it_likes_again_afterwards(files):
    log, before = logging.getLogger("torch.export"), os.environ.get("TORCH_FORCE_WEIGHTS_ONLY_LOAD")
    level = log.level
    load_engine(files / "good.pt2")
    assert (log.level, os.environ.get("TORCH_FORCE_WEIGHTS_ONLY_LOAD")) == (level, before)


# what is asked of a good file


@pytest.mark.parametrize("name", ["x.pth", "x", "deit_tiny_patch16_224"])
def test_an_unknown_suffix_is_refused(refuses, tmp_path, name):
    assert "an exported model is a file ending in .onnx, .xml, .pt2" in refuses(tmp_path / name)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_missing_file_is_named(refuses, tmp_path, suffix):
    assert refuses(tmp_path / f"x{suffix}", FileNotFoundError).endswith("no such file")
    (tmp_path / f"x{suffix}").mkdir()
    refuses(tmp_path / f"x{suffix}", FileNotFoundError)


@pytest.mark.parametrize(
    ("suffix", "precision"),
    [(".onnx", "bf16"), (".onnx", "fp16"), (".pt2", "bf16"), (".xml", "fp16"), (".xml", "f32")],
)
def test_a_precision_that_it_does_not_have_is_refused(files, refuses, suffix, precision):
    said = refuses(files / f"good{suffix}", precision=precision)
    assert f"runs in fp32, got precision {precision}; OpenVINO's .xml runs in bf16, too" in said


@pytest.mark.parametrize(("suffix", "package"), [(".onnx", "onnxruntime"), (".xml", "openvino")])
def test_an_engine_that_is_not_installed_is_named(files, monkeypatch, suffix, package):
    # importing what stands there as None raises ImportError
    monkeypatch.setitem(__import__("sys").modules, package, None)
    with pytest.raises(ValueError, match=rf"needs {package}: pip install 'batvit\[export\]'"):
        load_engine(files / f"good{suffix}")


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("shape", [(2, 3, 48, 48), (2, 1, 32, 32), (3, 32, 32), (2, 3, 32)])
def test_images_of_another_shape_are_refused(files, suffix, shape):
    with pytest.raises(ValueError, match=r"takes images of \(3, 32, 32\), got \("):
        load_engine(files / f"good{suffix}")(torch.zeros(shape))


def test_results_do_not_change_when_the_next_are_computed(files):
    images = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    for suffix in SUFFIXES:
        engine = load_engine(files / f"good{suffix}")
        first = engine(images)
        kept = first.clone()
        engine(images.flip(0))
        assert torch.equal(first, kept)
        assert not torch.equal(first, kept.flip(0))


@pytest.mark.parametrize(
    ("suffix", "runtime"),
    [(".onnx", "ONNX Runtime 1."), (".xml", "OpenVINO 20"), (".pt2", "torch 2.")],
)
def test_an_engine_is_a_module_for_inference(files, suffix, runtime):
    engine = load_engine(files / f"good{suffix}", threads=1).eval()
    assert not engine.training
    assert engine.runtime.startswith(runtime)
    assert engine.num_classes == 7
    assert engine.pretrained_cfg["mean"] == (0.485, 0.456, 0.406)
    assert engine.train().training
    assert engine(IMAGES).shape == (1, 7)


def test_other_engines_have_no_weights_of_torch(files):
    for suffix in SUFFIXES[:2]:
        engine = load_engine(files / f"good{suffix}", threads=1)
        assert not list(engine.parameters())


def test_the_next_batch_size_is_of_the_file_that_was_loaded(files, tmp_path):
    for name in ("good.xml", "good.bin"):
        shutil.copy(files / name, tmp_path / name)
    engine = load_engine(tmp_path / "good.xml")
    expected = engine(IMAGES)
    for name in ("good.xml", "good.bin"):
        (tmp_path / name).unlink()
    assert torch.allclose(engine(IMAGES.repeat(2, 1, 1, 1)), expected.repeat(2, 1), atol=1e-5)


def test_a_graph_holds_nobodys_picture(files):
    with zipfile.ZipFile(files / "good.pt2") as archive:
        (held,) = (
            name
            for name in archive.namelist()
            if "/data/sample_inputs/" in name and name.endswith(".pt")
        )
        ((example,), _) = torch.load(io.BytesIO(archive.read(held)), weights_only=True)
    assert example.shape == (2, 3, 32, 32)
    assert not example.any()


@pytest.mark.skipif(not BF16, reason="OpenVINO computes no bf16 on this processor")
@torch.no_grad()
def test_openvino_runs_the_same_file_in_bfloat16(files):
    images = torch.randn(8, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    exact, rounded = (
        load_engine(files / "good.xml", precision=precision)(images)
        for precision in ("fp32", "bf16")
    )
    assert rounded.dtype == torch.float32
    assert np.allclose(exact, rounded, atol=0.2)


def test_bfloat16_that_would_be_float32_is_refused(files, refuses, monkeypatch):
    monkeypatch.setattr("openvino.Core.get_property", lambda self, device, name: ["FP32", "INT8"])
    assert "computes no bf16 on this processor, and would take fp32" in refuses(
        files / "good.xml", precision="bf16"
    )
