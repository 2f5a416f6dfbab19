"""Where a result comes from."""

import shutil
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest
import torch

from batvit.storage import provenance


def git(folder, *arguments):
    identity = ("-c", "user.name=a", "-c", "user.email=a@b")
    command = ("git", "-C", str(folder), *identity, *arguments)
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


@pytest.fixture
def copied(tmp_path, imported):
    """The module in a repository that does not track it."""
    shutil.copy(provenance.__file__, tmp_path / "copied.py")
    git(tmp_path, "init", "--quiet")
    return imported(tmp_path / "copied.py")


def test_the_commit_is_that_of_the_checkout_this_file_is_in(copied, tmp_path, monkeypatch):
    # wherever the command is run
    monkeypatch.chdir(Path(__file__).parent)
    assert copied.git_commit() is None
    git(tmp_path, "add", "copied.py")
    git(tmp_path, "commit", "--quiet", "--message", "first")
    git(tmp_path, "tag", "v1")
    commit = git(tmp_path, "rev-parse", "HEAD")
    assert copied.git_commit() == commit
    with (tmp_path / "copied.py").open("a") as file:
        file.write("# changed\n")
    assert copied.git_commit() == f"{commit}-dirty"


def test_this_checkout_has_a_commit():
    commit = provenance.git_commit()
    here = Path(provenance.__file__).parent
    assert commit is not None
    assert commit.removesuffix("-dirty") == git(here, "rev-parse", "HEAD")


def test_without_git_there_is_no_commit(monkeypatch):
    monkeypatch.setenv("PATH", "")
    assert provenance.git_commit() is None


def test_versions_are_those_installed():
    versions = provenance.versions()
    assert versions["torch"] == version("torch")
    assert versions["python"].startswith(f"{sys.version_info.major}.")


def test_a_file_that_was_changed_has_another_stamp(tmp_path):
    path = tmp_path / "a"
    path.write_text("one")
    first = provenance.stamp(path)
    assert provenance.stamp(str(path)) == first
    path.write_text("another")
    assert provenance.stamp(path) != first


def test_a_machine_is_told_by_what_times_depend_on():
    machine = provenance.machine("cpu")
    assert machine["threads"] == torch.get_num_threads()
    assert machine["torch"] == torch.__version__
    assert machine["gpu"] is None
    assert machine["cpu"]


@pytest.mark.parametrize(
    ("dtype", "precision"),
    [(torch.float32, "fp32"), (torch.bfloat16, "bf16"), (torch.float64, "float64")],
)
def test_a_model_says_what_it_is_where_nobody_does(dtype, precision):
    model = torch.nn.Linear(1, 1).to(dtype)
    found = {"model": "Linear", "precision": precision, "device": "cpu"}
    assert provenance.model_metadata(model, {}) == found
    given = {"model": "mine", "data": "D"}
    assert provenance.model_metadata(model, given) == found | given


def test_labelled_files_are_told_apart_by_their_contents(tmp_path):
    path = tmp_path / "a.png"
    path.write_bytes(b"one")
    before = provenance.stamped([(path, 3)])
    assert before[0][:3] == [str(path), 3, 3]
    path.write_bytes(b"other")
    assert provenance.stamped([(path, 3)]) != before
