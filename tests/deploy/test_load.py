"""Loading exported files, which come from anywhere: one line for everything that is no good."""

import os

import pytest

from batvit.deploy.load import load_engine

pytestmark = pytest.mark.unchecked
SUFFIXES = (".onnx", ".xml", ".pt2")


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("what", ["cut", "empty", "text"])
def test_a_broken_file_is_refused(files, tmp_path, refuses, capfd, suffix, what):
    content = (files / f"good{suffix}").read_bytes()
    path = tmp_path / f"x{suffix}"
    path.write_bytes({"cut": content[: len(content) // 2], "empty": b"", "text": b"hello"}[what])
    assert "cannot be read (" in refuses(path)
    assert "Traceback" not in capfd.readouterr().err


@pytest.mark.parametrize("name", ["x.pth", "x", "deit_tiny_patch16_224"])
def test_an_unknown_suffix_is_refused(refuses, tmp_path, name):
    assert "an exported model is a file ending in .onnx, .xml, .pt2" in refuses(tmp_path / name)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_missing_file_is_named(refuses, tmp_path, suffix):
    assert refuses(tmp_path / f"x{suffix}", FileNotFoundError).endswith("no such file")
    (tmp_path / f"x{suffix}").mkdir()
    refuses(tmp_path / f"x{suffix}", FileNotFoundError)


@pytest.mark.parametrize("name", ["x.onnx", "x.xml", "x.pt2", "x.bin"])
def test_a_pipe_is_refused_before_it_is_opened(files, tmp_path, name):
    named = tmp_path / name.replace(".bin", ".xml")
    named.write_bytes((files / f"good{named.suffix}").read_bytes())
    (tmp_path / name).unlink(missing_ok=True)
    os.mkfifo(tmp_path / name)
    with pytest.raises(OSError, match=f"{name}: is no regular file"):
        load_engine(named)


@pytest.mark.parametrize(
    ("suffix", "precision"),
    [(".onnx", "bf16"), (".onnx", "fp16"), (".pt2", "bf16"), (".xml", "fp16"), (".xml", "f32")],
)
def test_a_precision_that_it_does_not_have_is_refused(files, refuses, suffix, precision):
    said = refuses(files / f"good{suffix}", precision=precision)
    assert f"runs in fp32, got precision={precision}; OpenVINO's .xml runs in bf16, too" in said


@pytest.mark.parametrize(("suffix", "package"), [(".onnx", "onnxruntime"), (".xml", "openvino")])
def test_an_engine_that_is_not_installed_is_named(files, monkeypatch, suffix, package):
    # importing what stands there as None raises ImportError
    monkeypatch.setitem(__import__("sys").modules, package, None)
    with pytest.raises(ValueError, match=rf"needs the package {package}: pip install {package}"):
        load_engine(files / f"good{suffix}")
