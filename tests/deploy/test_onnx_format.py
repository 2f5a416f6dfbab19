"""ONNX: the opset is the one asked for."""

import onnx
import pytest
import torch

from batvit.deploy.export import export

pytestmark = pytest.mark.unchecked
SIZE = 48


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_the_opset_is_that_asked_for(tmp_path, dense, traced_once):
    with traced_once("one block"):
        done = export(dense(depth=1), tmp_path / "model.onnx", opset=19)
    written = onnx.load(done.path)
    assert {entry.domain: entry.version for entry in written.opset_import}[""] == 19
    for value, shape in (
        (written.graph.input[0], ["batch", 3, SIZE, SIZE]),
        (written.graph.output[0], ["batch", 7]),
    ):
        assert [
            axis.dim_param or axis.dim_value for axis in value.type.tensor_type.shape.dim
        ] == shape


def test_an_opset_that_is_not_honoured_is_refused(tmp_path, monkeypatch, dense, traced_once):
    write = torch.onnx.export
    monkeypatch.setattr(
        torch.onnx, "export", lambda *given, **how: write(*given, **(how | {"opset_version": 18}))
    )
    with (
        pytest.raises(
            ValueError, match=r"model.onnx: opset 19 cannot be had .*, which give 18; ask for that"
        ),
        traced_once("one block"),
    ):
        export(dense(depth=1), tmp_path / "model.onnx", opset=19)
    assert not names(tmp_path)
