"""Two exported files of one model: what is refused, what runs them, what they cost."""

from dataclasses import replace

import pytest

from batvit.deploy import pair
from batvit.deploy.format import Engine
from batvit.deploy.metadata import ExportMetadata

DENSE = ExportMetadata(
    model="vit",
    config=None,
    macs=4_000_000_000,
    dense_macs=4_000_000_000,
    param_count=22,
    num_classes=10,
    int8=False,
    input_size=(3, 32, 48),
    mean=(0.5, 0.5, 0.5),
    std=(0.5, 0.5, 0.5),
    interpolation="bicubic",
    crop_pct=0.9,
    crop_mode="center",
)
REDUCED = replace(DENSE, config={"keep_rate": 0.5}, macs=2_000_000_000)


@pytest.fixture
def load(monkeypatch):
    """Load a pair of files that say this of themselves."""

    def check(dense, reduced):
        files = {"dense.onnx": dense, "reduced.onnx": reduced}
        monkeypatch.setattr(
            pair, "load_engine", lambda path, precision: Engine(files[path], "engine 1.0")
        )
        return pair.load_pair("dense.onnx", "reduced.onnx")

    return check


def test_one_model_dense_and_reduced_is_a_pair(load):
    dense, reduced = load(DENSE, REDUCED)
    assert not dense.training
    assert not reduced.training
    assert pair.runtime_of_pair(dense, reduced) == "engine 1.0"
    assert pair.precision_of_pair(dense, reduced, precision="bf16") == "bf16"


def test_two_reduced_files_are_no_pair(load):
    with pytest.raises(ValueError, match=r"^dense_file=dense\.onnx is a reduced model; give one"):
        load(REDUCED, REDUCED)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("input_size", (3, 32, 32)),
        ("num_classes", 9),
        ("dense_macs", 7),
        ("param_count", 7),
        ("mean", (0.4, 0.4, 0.4)),
        ("std", (0.4, 0.4, 0.4)),
        ("interpolation", "bilinear"),
        ("crop_pct", 0.5),
        ("crop_mode", "squash"),
    ],
)
def test_files_of_two_models_are_no_pair(load, field, value):
    said = rf"^dense.onnx and reduced.onnx do not compare: {field} is .* and "
    with pytest.raises(ValueError, match=said):
        load(DENSE, replace(REDUCED, **{field: value}))


def test_what_differs_is_said_of_both(load):
    dense, _ = load(DENSE, REDUCED)
    reduced = Engine(replace(REDUCED, int8=True), "engine 2.0")
    assert pair.runtime_of_pair(dense, reduced) == "engine 1.0 dense, engine 2.0 reduced"
    said = pair.precision_of_pair(dense, reduced, precision="fp32")
    assert said == "fp32 dense, int8 reduced"


def test_a_file_says_what_it_costs():
    cost = pair.cost_of(REDUCED)
    assert cost["model"] == "vit"
    assert cost["img_size"] == (32, 48)
    assert (cost["gmacs"], cost["dense_gmacs"], cost["mac_ratio"]) == (2.0, 4.0, 2.0)
    assert cost["config"] == {"keep_rate": 0.5}
    assert cost["int8"] is False
