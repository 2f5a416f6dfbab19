"""What is published: what may be in the files, and what their metadata promises."""

import re
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from pathlib import Path

import pytest

import batvit

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
PYTHON = "Programming Language :: Python :: "


@pytest.fixture
def package(imported):
    """The script that checks the files."""
    return imported("benchmarks/package.py")


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """The wheel and the source distribution."""
    folder = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", folder, ROOT]
    subprocess.run(command, check=True, capture_output=True)
    (wheel,) = folder.glob("*.whl")
    (source,) = folder.glob("*.tar.gz")
    return wheel, source


def test_both_files_hold_what_they_should(built, package):
    package.check(*built)
    command = [sys.executable, "-m", "twine", "check", "--strict", *built]
    said = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    assert said.count("PASSED") == 2


def test_every_module_is_in_the_wheel(built):
    with zipfile.ZipFile(built[0]) as archive:
        names = set(archive.namelist())
    root = Path(batvit.__file__).parents[1]
    for path in root.glob("batvit/**/*"):
        if path.is_file() and "__pycache__" not in path.parts:
            assert path.relative_to(root).as_posix() in names


def test_what_is_wrong_is_found(package, tmp_path):
    assert package.foreign(["batvit/core/merge.py", "batvit-0.1.0.dist-info/METADATA"]) == []
    wrong = ["tests/conftest.py", "batvit/test_merge.py", "batvit/tests/merge.py"]
    assert package.foreign(wrong) == wrong
    inside = [f"batvit-0.1.0/{name}" for name in package.NEEDED]
    assert package.lacking(inside) == []
    assert package.lacking(inside[1:]) == [package.NEEDED[0]]

    with zipfile.ZipFile(tmp_path / "a.whl", "w") as wheel:
        wheel.writestr("batvit/__init__.py", "")
    large = tmp_path / "large"
    large.write_bytes(bytes(package.LARGEST + 1))
    with tarfile.open(tmp_path / "a.tar.gz", "w:gz") as source:
        for name in inside:
            source.add(large, name)
    with pytest.raises(SystemExit, match="more than"):
        package.check(tmp_path / "a.whl", tmp_path / "a.tar.gz")


def test_the_pythons_that_are_promised_are_those_that_are_tested():
    promised = []
    for classifier in PROJECT["classifiers"]:
        version = classifier.removeprefix(PYTHON)
        if re.fullmatch(r"\d\.\d+", version):
            promised.append(version)
    workflow = (ROOT / ".github" / "workflows" / "ci.yml").read_text()
    (tested,) = re.findall(r"python: \[(.*)\]", workflow)
    assert re.findall(r'"([\d.]+)"', tested) == promised
    assert PROJECT["requires-python"] == f">={promised[0]}"
