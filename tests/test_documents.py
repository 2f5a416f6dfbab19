"""The files that the documents name are there."""

import re
from pathlib import Path

import pytest

import batvit

ROOT = Path(__file__).parents[1]
DOCUMENTS = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
FILE = re.compile(r"`((?:[\w.]+/)+[\w.]+\.(?:py|md|json|png))(?:: [^`]*)?`")
LINK = re.compile(r"\]\((?!http)([^)#]+)")
CODE = re.compile(r"```python\n(.*?)```", re.DOTALL)


def named(text):
    """The files of this repository that a text names, in code with their folder, or in a link."""
    return {*FILE.findall(text), *LINK.findall(text)}


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_every_file_that_is_named_is_there(document):
    # code names files from the root, or from the library's folder
    places = (document.parent, ROOT, ROOT / "src" / "batvit", ROOT / "src" / "batvit" / "cli")
    for name in named(document.read_text()):
        assert any((place / name).exists() for place in places) or is_output(name), name


def is_output(name):
    """What a command writes, in a folder that the reader names: RUN, T."""
    return name.partition("/")[0].isupper()


def test_files_are_found_in_a_text():
    text = "`core/merge.py: merge`, [a](docs/b.md), `RUN/run.json`, `merge.py`, [c](http://d/e.md)"
    assert named(text) == {"core/merge.py", "docs/b.md", "RUN/run.json"}


@pytest.mark.parametrize("name", ["configuration", "tools"])
def test_code_that_needs_no_download_runs(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    blocks = CODE.findall((ROOT / "docs" / f"{name}.md").read_text())
    assert blocks
    for block in blocks:
        names = {}
        exec(block, names)
        assert batvit.config_of(names["model"]) is not None
