"""Graphs of torch.export: no code in a file is run, and nobody's picture is in one."""

import contextlib
import io
import json
import logging
import os
import pickle
import zipfile

import pytest
import torch

from batvit.deploy.load import load_engine

pytestmark = pytest.mark.unchecked
IMAGES = torch.zeros(1, 3, 32, 32)


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
        (place,) = (place for place in archive.namelist() if place.endswith(f"/{name}"))
        return change(archive.read(place).decode()).encode()


def evil(files, what, marker):
    """Records that make torch.export.load run code, each by another door."""
    weights, constants = (
        "data/weights/model_weights_config.json",
        "data/constants/model_constants_config.json",
    )
    graph = "models/model.json"
    constant = (
        '{{"config": {{"x": {{"path_name": "{}", "is_param": false, "use_pickle": true,'
        ' "tensor_meta": null}}}}}}'
    )
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
def test_code_in_a_file_is_not_run(files, tmp_path, refuses, rewrite, what):
    marker = tmp_path / "marker"
    path = tmp_path / "x.pt2"
    rewrite(files / "good.pt2", path, evil(files, what, marker))
    before = dict(os.environ)
    assert "cannot be read (" in refuses(path)
    assert not marker.exists()
    assert dict(os.environ) == before


def test_a_file_that_would_unpack_to_more_than_it_is_is_refused(files, tmp_path, refuses):
    path = tmp_path / "x.pt2"
    with zipfile.ZipFile(files / "good.pt2") as good:
        parts = {name: good.read(name) for name in good.namelist()}
    weight = next(name for name in parts if name.endswith("weight_0"))
    parts[weight] = bytes(2**24)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as bomb:
        for name, content in parts.items():
            bomb.writestr(name, content)
    assert "would unpack to" in refuses(path)


@pytest.mark.parametrize("what", ["weight", "opaque", "expression", "guards"])
def test_the_payloads_would_run(files, tmp_path, rewrite, what):
    marker = tmp_path / "marker"
    rewrite(files / "good.pt2", tmp_path / "x.pt2", evil(files, what, marker))
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
