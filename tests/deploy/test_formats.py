"""The table of formats: each has a file of its own, and the table needs no torch."""

import subprocess
import sys
from pathlib import Path

import pytest

from batvit.deploy.formats import FORMATS, SUFFIXES, files_of, format_of, is_exported


@pytest.mark.parametrize("name", FORMATS)
def test_each_format_is_found_by_its_suffix(name):
    suffix = FORMATS[name].suffix
    assert SUFFIXES[suffix] == name
    assert format_of(f"some/model{suffix}").name == name


@pytest.mark.parametrize(
    ("name", "exported"),
    [("a.onnx", True), ("a/b.xml", True), (Path("a.pt2"), True), ("a.pth", False), ("onnx", False)],
)
def test_a_suffix_says_whether_a_file_was_exported(name, exported):
    assert is_exported(name) == exported


@pytest.mark.parametrize(
    ("name", "files"),
    [
        ("a/b.onnx", ["a/b.onnx", "a/b.onnx.data"]),
        ("a/b.xml", ["a/b.xml", "a/b.bin"]),
        ("a/b.pt2", ["a/b.pt2"]),
    ],
)
def test_the_files_of_a_model_are_that_and_its_weights(name, files):
    assert [str(path) for path in files_of(name)] == files


def test_the_table_is_read_without_torch():
    code = "import sys, batvit.deploy.formats; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"
