"""Drafts: hidden until they are whole, and gone with whoever wrote them."""

import os
import signal
import subprocess
import sys
import threading

import pytest

from batvit.storage.drafts import SUFFIX, draft_file, draft_folder, publish, sweep
from batvit.storage.files import write_atomic

# what a process does before it waits to be killed
FILE = """
with draft_file(path) as (draft, file):
    file.write(b"half")
    file.flush()
    wait()
"""
FOLDER = """
with draft_folder(path) as draft:
    (draft / "a.bin").write_text("half")
    wait()
"""
HALF_PUBLISHED = """
with draft_folder(path) as draft:
    for name in ("a.bin", "a.xml"):
        (draft / name).write_text("new")
    path.with_name("a.bin").hardlink_to(draft / "a.bin")
    wait()
"""
PUBLISHED = """
with draft_folder(path) as draft:
    for name in ("a.bin", "a.xml"):
        (draft / name).write_text("new")
    publish(draft, path)
    wait()
"""


def names(folder):
    return sorted(path.name for path in folder.iterdir())


@pytest.fixture
def waiting(tmp_path):
    """Start a process that writes a draft of a.xml; it is killed at the end of the test."""
    started = []

    def start(what):
        lines = (
            "import sys",
            "from pathlib import Path",
            "from batvit.storage.drafts import draft_file, draft_folder, publish",
            "def wait():",
            "    print('waits', flush=True)",
            "    sys.stdin.read()",
            f"path = Path({str(tmp_path / 'a.xml')!r})",
        )
        process = subprocess.Popen(
            [sys.executable, "-c", "\n".join(lines) + what],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        started.append(process)
        assert process.stdout.readline() == b"waits\n"
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


@pytest.mark.parametrize("what", [FILE, FOLDER, HALF_PUBLISHED], ids=["file", "folder", "half"])
@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGTERM])
def test_a_draft_is_swept_when_its_writer_is_dead_and_not_before(tmp_path, waiting, what, end):
    process = waiting(what)
    before = names(tmp_path)
    assert any(name.endswith(SUFFIX) for name in before)
    sweep(tmp_path)
    sweep(tmp_path, "a.xml")
    assert names(tmp_path) == before
    process.send_signal(end)
    process.wait()
    assert names(tmp_path) == before
    sweep(tmp_path, "another.xml")
    assert names(tmp_path) == before
    sweep(tmp_path, "a.xml")
    assert names(tmp_path) == []


def test_what_was_published_before_the_end_stays(tmp_path, waiting):
    process = waiting(PUBLISHED)
    process.kill()
    process.wait()
    sweep(tmp_path)
    assert names(tmp_path) == ["a.bin", "a.xml"]


@pytest.mark.parametrize("what", [FILE, FOLDER], ids=["file", "folder"])
def test_the_next_to_write_sweeps(tmp_path, waiting, what):
    process = waiting(what)
    write_atomic(tmp_path / "a.xml", "while another writes it")
    assert len(names(tmp_path)) == 2
    process.kill()
    process.wait()
    write_atomic(tmp_path / "a.xml", "new")
    assert names(tmp_path) == ["a.xml"]


def test_a_draft_is_gone_after_the_block_however_it_ends(tmp_path):
    with draft_file(tmp_path / "a"), draft_folder(tmp_path / "b"):
        assert len(names(tmp_path)) == 2
    for draft in (draft_file, draft_folder):
        with pytest.raises(KeyboardInterrupt), draft(tmp_path / "a"):
            raise KeyboardInterrupt
    assert names(tmp_path) == []


def test_what_is_no_draft_stays(tmp_path):
    kept = [".a", f"a{SUFFIX}", ".a.json.swp", f".fifo{SUFFIX}", f".link{SUFFIX}"]
    for name in kept[:3]:
        (tmp_path / name).write_text("mine")
    os.mkfifo(tmp_path / kept[3])
    (tmp_path / kept[4]).symlink_to(tmp_path / ".a")
    sweep(tmp_path)
    assert names(tmp_path) == sorted(kept)


@pytest.mark.parametrize("length", [1, 100, 250])
def test_names_may_be_as_long_as_the_file_system_has_them(tmp_path, length):
    name = "ü" * (length // 2) + "x" * (length % 2)
    write_atomic(tmp_path / name, "x")
    with draft_folder(tmp_path / name):
        pass
    assert names(tmp_path) == [name]


@pytest.mark.parametrize("there", ["a.bin", "a.xml"])
def test_what_came_to_be_there_meanwhile_stays(tmp_path, there):
    (tmp_path / there).write_text("old")
    with draft_folder(tmp_path / "a.xml") as draft:
        for name in ("a.bin", "a.xml"):
            (draft / name).write_text("new")
        told = rf"{there} exists; remove it or name another file"
        with pytest.raises(FileExistsError, match=told):
            publish(draft, tmp_path / "a.xml")
    assert names(tmp_path) == [there]
    assert (tmp_path / there).read_text() == "old"


def test_many_writers_of_one_file_sweep_none_of_each_other(tmp_path):
    errors = []

    def write(text):
        try:
            for _ in range(20):
                write_atomic(tmp_path / "a", text)
                sweep(tmp_path)
        except OSError as error:
            errors.append(error)

    texts = [letter * 5000 for letter in "abcd"]
    writers = [threading.Thread(target=write, args=(text,)) for text in texts]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert not errors
    assert names(tmp_path) == ["a"]
    assert (tmp_path / "a").read_text() in texts
