"""Files that a user names: what is refused before it is opened."""

import json
import os

import pytest

from batvit.storage.files import read_json
from batvit.storage.reading import (
    LARGEST_TEXT,
    check_file,
    read_text,
    real_path,
    trouble_with,
    unique_keys,
)


@pytest.fixture
def odd(tmp_path):
    """Paths that are no files to read, by kind."""
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "circle").symlink_to(tmp_path / "circle")
    (tmp_path / "nowhere").symlink_to(tmp_path / "gone")
    with (tmp_path / "huge").open("wb") as file:
        file.truncate(2**40)
    return {
        "pipe": tmp_path / "pipe",
        "device": "/dev/zero",
        "folder": tmp_path,
        "circle": tmp_path / "circle",
        "nowhere": tmp_path / "nowhere",
        "huge": tmp_path / "huge",
        "long": "x" * 5000,
        "nul": "a\0b",
        "below a file": tmp_path / "huge" / "x",
    }


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        ("pipe", "is no regular file; name another"),
        ("device", "is no regular file; name another"),
        ("folder", "no such file; it is a folder, name a file in it"),
        ("circle", r"cannot be read \(Too many levels of symbolic links\); name another"),
        ("nowhere", "no such file$"),
        ("huge", "is too large, 1,048,576 MiB where 16 are allowed; name another"),
        ("long", r"cannot be read \(File name too long\); name another"),
        ("nul", "no such file; its name holds a NUL byte"),
        ("below a file", "no such file$"),
    ],
)
def test_what_is_no_regular_file_is_refused_with_a_remedy(odd, kind, said):
    for read in (read_text, read_json):
        with pytest.raises(OSError, match=f"^{odd[kind]}: {said}"):
            read(odd[kind])


def test_a_file_is_read_through_links(tmp_path):
    (tmp_path / "a").write_bytes("\ufeffä".encode())
    (tmp_path / "b").symlink_to(tmp_path / "a")
    assert check_file(str(tmp_path / "b"), largest=5) == tmp_path / "b"
    assert trouble_with(tmp_path / "b", largest=4) is not None
    assert read_text(tmp_path / "b") == "ä"
    assert real_path(tmp_path / "b") == real_path(tmp_path / "a")


def test_a_file_that_says_it_is_empty_ends_at_the_limit(monkeypatch):
    monkeypatch.setattr("batvit.storage.reading.LARGEST_TEXT", 3)
    with pytest.raises(OSError, match="status: is too large for a text file; name another"):
        read_text("/proc/self/status")
    assert LARGEST_TEXT > 3


def test_a_path_through_a_circle_stays(tmp_path):
    (tmp_path / "circle").symlink_to("circle")
    assert real_path(tmp_path / "circle" / "x").name == "x"


@pytest.mark.parametrize("text", ['{"a": 1, "a": 1}', '[{"b": {"a": 1, "a": 2}}]'])
def test_a_key_that_stands_twice_is_refused(tmp_path, text):
    (tmp_path / "x.json").write_text(text)
    with pytest.raises(ValueError, match=r"x.json: not a JSON file \(the key 'a' stands twice"):
        read_json(tmp_path / "x.json")
    assert json.loads('{"a": {"a": 1}}', object_pairs_hook=unique_keys) == {"a": {"a": 1}}
