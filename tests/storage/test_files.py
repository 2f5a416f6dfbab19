"""Files: whole or not at all."""

import json
import os
import re
import stat
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batvit.storage.files import (
    check_folder,
    check_there,
    check_writable,
    first_line,
    read_json,
    write_atomic,
)


def test_text_and_bytes_are_written(tmp_path):
    assert write_atomic(tmp_path / "a.txt", "grün\n").read_bytes() == "grün\n".encode()
    assert write_atomic(str(tmp_path / "b.bin"), b"\x00\xff").read_bytes() == b"\x00\xff"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.txt", "b.bin"]


def test_an_old_file_is_replaced(tmp_path):
    path = write_atomic(tmp_path / "a.txt", "a long old text")
    assert write_atomic(path, "new").read_text() == "new"


def test_a_file_is_as_readable_as_one_that_open_makes(tmp_path):
    (tmp_path / "plain").write_text("")
    written = write_atomic(tmp_path / "atomic", "")
    assert stat.S_IMODE(written.stat().st_mode) == stat.S_IMODE((tmp_path / "plain").stat().st_mode)


def test_a_missing_folder_is_an_error(tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere"):
        write_atomic(tmp_path / "nowhere" / "a.txt", "x")
    assert not list(tmp_path.iterdir())


def test_a_folder_is_not_replaced(tmp_path):
    folder = tmp_path / "folder"
    folder.mkdir()
    with pytest.raises(OSError, match="folder"):
        write_atomic(folder, "x")
    assert [p.name for p in tmp_path.iterdir()] == ["folder"]


def test_what_fails_in_the_middle_leaves_the_old_file(tmp_path):
    path = write_atomic(tmp_path / "a.txt", "old")
    # half of a surrogate pair has no bytes
    with pytest.raises(UnicodeEncodeError):
        write_atomic(path, "new \ud800")
    assert [p.name for p in tmp_path.iterdir()] == ["a.txt"]
    assert path.read_text() == "old"


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full, which is always full")
def test_a_full_disk_is_told_with_its_file(tmp_path, monkeypatch):
    def full(handle, mode):
        os.close(handle)
        return Path("/dev/full").open(mode, buffering=0)

    monkeypatch.setattr("batvit.storage.files.os.fdopen", full)
    with pytest.raises(OSError, match=r"cannot write .*a.txt: the disk is full; make room there"):
        write_atomic(tmp_path / "a.txt", "x")
    assert not list(tmp_path.iterdir())


def test_a_link_is_writable_if_what_it_points_to_is(tmp_path):
    (tmp_path / "link").symlink_to(tmp_path / "nowhere" / "a.txt")
    with pytest.raises(FileNotFoundError, match="nowhere"):
        check_writable(tmp_path / "link")
    (tmp_path / "nowhere").mkdir()
    assert write_atomic(check_writable(tmp_path / "link"), "x").read_text() == "x"
    assert (tmp_path / "nowhere" / "a.txt").read_text() == "x"


def test_a_path_to_write_is_given_back(tmp_path):
    assert check_writable(str(tmp_path / "new.txt")) == tmp_path / "new.txt"
    assert check_writable(write_atomic(tmp_path / "old.txt", "x")) == tmp_path / "old.txt"
    # asking makes no file
    assert [p.name for p in tmp_path.iterdir()] == ["old.txt"]


def test_a_path_that_cannot_be_written_is_refused_with_a_remedy(tmp_path):
    with pytest.raises(IsADirectoryError, match=f"{tmp_path}: it is a folder; name a file in it"):
        check_writable(tmp_path)
    with pytest.raises(FileNotFoundError, match=r"nowhere does not exist; create it first"):
        check_writable(tmp_path / "nowhere" / "a.txt")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_that_is_read_only_is_refused(tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(PermissionError, match="is not writable"):
        check_writable(tmp_path / "a.txt")


def test_an_output_folder_may_hold_any_name(tmp_path):
    (tmp_path / "file").mkdir()
    assert check_folder(tmp_path) == tmp_path
    with pytest.raises(FileNotFoundError, match="nowhere does not exist; create it first"):
        check_folder(tmp_path / "nowhere" / "out")


def test_json_is_read(tmp_path):
    assert read_json(write_atomic(tmp_path / "a.json", '{"name": "grün"}')) == {"name": "grün"}


def test_a_missing_json_file_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"nowhere.json: no such file"):
        read_json(tmp_path / "nowhere.json")


@given(st.binary(max_size=20))
def test_any_bytes_are_json_or_an_error_that_names_the_file(tmp_path_factory, content):
    path = write_atomic(tmp_path_factory.getbasetemp() / "any.json", content)
    try:
        json.loads(content)
    except ValueError:
        with pytest.raises(ValueError, match=rf"^{re.escape(str(path))}: not a JSON file"):
            read_json(path)
    else:
        read_json(path)


def test_what_is_no_regular_file_is_not_replaced(tmp_path):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with pytest.raises(OSError, match="no regular file"):
        write_atomic(pipe, "x")
    assert pipe.is_fifo()


def test_a_folder_to_read_must_be_there(tmp_path):
    check_there(tmp_path)
    with pytest.raises(FileNotFoundError, match=f"{tmp_path}/none: no such folder"):
        check_there(tmp_path / "none")


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (ValueError("no luck"), "no luck"),
        (ValueError("no luck\nand more"), "no luck"),
        (ValueError("\n  no luck\n"), "no luck"),
        (
            RuntimeError("does not fit:\n\tthis   one\n\tand that"),
            "does not fit: this one and that",
        ),
        (KeyError(), "KeyError"),
        (ValueError(" \n"), "ValueError"),
        (ValueError("a" * 300), "a" * 300),
        (ValueError("a" * 301), "a" * 299 + "…"),
    ],
)
def test_an_error_is_told_in_one_line(error, line):
    assert first_line(error) == line
