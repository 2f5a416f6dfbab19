"""OpenVINO: how it sorts, what it quantises, where its weights are, and bfloat16."""

import shutil

import numpy as np
import openvino
import pytest
import torch

from batvit.deploy.export import export
from batvit.deploy.load import load_engine

pytestmark = pytest.mark.unchecked
SIZE = 48
IMAGES = torch.zeros(1, 3, 32, 32)
BF16 = "BF16" in openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")


def noise(batch, seed=1):
    return torch.randn(batch, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(seed))


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_openvino_may_sort_its_fast_way(tmp_path, reduced, traced_once):
    with traced_once("reduced"):
        done = export(reduced(), tmp_path / "model.xml")
    chosen = [
        op.get_attributes()
        for op in openvino.Core().read_model(done.path).get_ops()
        if op.get_type_name() == "TopK"
    ]
    # by importance, by similarity, by score
    assert [each["stable"] for each in chosen if each["sort"] == "value"] == [False] * 3


@pytest.mark.filterwarnings("default")
def test_what_an_engine_cannot_express_is_one_line(tmp_path, dense):
    """OpenVINO has no antialiased resampling, which a model for all image sizes needs."""
    with pytest.raises(ValueError, match="openvino cannot take this model") as caught:
        export(dense(depth=1, dynamic_img_size=True), tmp_path / "model.xml")
    assert "\n" not in str(caught.value)
    assert not names(tmp_path)


def test_int8_leaves_the_reduction_as_it_is(tmp_path, reduced, traced_once):
    model = reduced()
    with traced_once("reduced"):
        done = export(
            model, tmp_path / "model.xml", calibration=[noise(1, seed=i) for i in range(4)]
        )
    assert names(tmp_path) == ["model.bin", "model.xml"]
    assert done.metadata.int8
    assert load_engine(done.path).metadata == done.metadata
    assert load_engine(done.path)(noise(3)).isfinite().all()
    assert 1e-3 < done.largest_difference < 5
    quantised, precise = set(), set()
    for node in openvino.Core().read_model(done.path).get_ops():
        if node.get_type_name() == "MatMul":
            feeding = {
                value.get_source_output().get_node().get_type_name() for value in node.inputs()
            }
            (quantised if "FakeQuantize" in feeding else precise).add(node.get_friendly_name())
    # importance, cosines, distances, and what merges
    assert len(precise) >= 4
    assert all("aten.matmul" in name or "aten.bmm" in name for name in precise)
    # four of each block and the head
    assert len(quantised) == 4 * 2 + 1
    assert all("aten.linear" in name for name in quantised)


@pytest.mark.parametrize("content", [None, b"", b"\0" * 100])
def test_weights_that_are_missing_or_cut_are_refused(files, tmp_path, refuses, content):
    shutil.copy(files / "good.xml", tmp_path / "x.xml")
    if content is not None:
        (tmp_path / "x.bin").write_bytes(content)
    assert "cannot be read (" in refuses(tmp_path / "x.xml")


def test_the_next_batch_size_is_of_the_file_that_was_loaded(files, tmp_path):
    for name in ("good.xml", "good.bin"):
        shutil.copy(files / name, tmp_path / name)
    engine = load_engine(tmp_path / "good.xml")
    expected = engine(IMAGES)
    for name in ("good.xml", "good.bin"):
        (tmp_path / name).unlink()
    assert torch.allclose(engine(IMAGES.repeat(2, 1, 1, 1)), expected.repeat(2, 1), atol=1e-5)


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
