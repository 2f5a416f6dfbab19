"""Files: whole or not at all."""

import errno
import json
import os
import re
import stat
import sys
import threading
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.figure import Figure
from PIL import Image
from torch import nn

from batvit.config import BATConfig
from batvit.storage.figures import save
from batvit.storage.files import (
    NoRoomError,
    check_folder,
    check_room,
    check_there,
    check_writable,
    first_line,
    no_room_named,
    read_json,
    write_atomic,
)
from batvit.storage.pictures import save_picture
from batvit.storage.weights import save_weights


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


WRITERS = {
    "text": lambda path: write_atomic(path, "x" * 2000),
    "figure": lambda path: save(Figure(), path.with_suffix(".svg")),
    "picture": lambda path: save_picture(
        Image.effect_noise((64, 64), 50), path.with_suffix(".png")
    ),
    "weights": lambda path: save_weights(nn.Linear(64, 64), path),
    "configuration": lambda path: BATConfig().save(path),
}


@pytest.mark.parametrize("kind", WRITERS)
@pytest.mark.parametrize("old", [None, "old"])
def test_where_there_is_no_room_the_file_is_named_and_the_old_one_stays(
    tmp_path, file_size_limit, kind, old
):
    for suffix in ("", ".svg", ".png"):
        if old is not None:
            (tmp_path / f"out{suffix}").write_text(old)
    before = {path: path.read_text() for path in tmp_path.iterdir()}
    with file_size_limit(100), pytest.raises(NoRoomError) as caught:
        WRITERS[kind](tmp_path / "out")
    assert re.search(
        r"cannot write .*/out[.\w]*: files so large are not allowed", str(caught.value)
    )
    assert "\n" not in str(caught.value)
    assert {path: path.read_text() for path in tmp_path.iterdir()} == before


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full, which is always full")
def test_a_full_disk_is_told_with_its_file(tmp_path):
    told = "cannot write LOG: the disk is full; make room there"
    # what is named already keeps its name
    with (
        pytest.raises(NoRoomError, match=told) as caught,
        no_room_named("OUTER"),
        no_room_named("LOG"),
        Path("/dev/full").open("a") as file,
    ):
        file.write("a line")
    assert caught.value.errno == errno.ENOSPC
    # what is wrong for another reason is told as it was
    with pytest.raises(FileNotFoundError, match="nowhere"), no_room_named("LOG"):
        (tmp_path / "nowhere").read_text()


def test_room_is_known_to_be_there_or_not(tmp_path, file_size_limit):
    with file_size_limit(2**21):
        check_room(tmp_path / "a.xml", 2**20)
        with pytest.raises(NoRoomError, match=r"cannot write .*a\.xml: files so large"):
            check_room(tmp_path / "a.xml", 2**22)
    assert not list(tmp_path.iterdir())


def mode_of(path):
    return stat.S_IMODE(path.stat().st_mode)


@pytest.mark.parametrize("mode", [0o600, 0o640, 0o444, 0o755])
def test_a_file_that_is_replaced_keeps_its_permissions(tmp_path, mode):
    path = tmp_path / "a.txt"
    path.write_text("old")
    path.chmod(mode)
    assert write_atomic(path, "new").read_text() == "new"
    assert mode_of(path) == mode


@pytest.mark.parametrize("umask", [0o022, 0o027, 0o077])
def test_other_threads_keep_their_umask_while_files_are_written(tmp_path, umask):
    before = os.umask(umask)
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    done = threading.Event()

    def write():
        for i in range(60):
            write_atomic(tmp_path / f"atomic{i % 3}", "x")
        done.set()

    writer = threading.Thread(target=write)
    try:
        writer.start()
        modes = set()
        while not done.is_set():
            (tmp_path / "plain").touch()
            modes.add(mode_of(tmp_path / "plain"))
            (tmp_path / "plain").unlink()
        writer.join()
        assert modes == {0o666 & ~umask}
        assert {mode_of(path) for path in tmp_path.iterdir()} == {0o666 & ~umask}
    finally:
        sys.setswitchinterval(interval)
        os.umask(before)


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
