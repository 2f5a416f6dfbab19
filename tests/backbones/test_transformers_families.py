"""The table of transformers' families: every class that one stands for, and how one is added."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
import transformers
from families import pictures
from transformers.models.auto import modeling_auto
from transformers_models import REDUCED, REFUSED, is_there, named, of

import batvit
from batvit.backbones import transformers_blocks, transformers_families
from batvit.backbones.transformers_families import FAMILIES
from batvit.testing import check_backbone

TASKS = (
    *("IMAGE", "IMAGE_CLASSIFICATION", "MASKED_IMAGE_MODELING", "BACKBONE", "DEPTH_ESTIMATION"),
    *("ZERO_SHOT_IMAGE_CLASSIFICATION", "ZERO_SHOT_OBJECT_DETECTION", "OBJECT_DETECTION"),
)
CHECKS = ("keeping_everything", "unpatching", "counts", "saving", "size_awareness")


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("name", REDUCED)
def test_every_class_is_reduced(name):
    if not is_there(name):
        pytest.skip(f"this version of transformers has no {name}")
    x = pictures(REDUCED[name]())
    for check in CHECKS:
        if (name, check) == ("BeitForSemanticSegmentation", "size_awareness"):
            # its head reads no map behind the last layers
            continue
        assert check_backbone(REDUCED[name], x, only=check) == [check]


def test_most_classes_are_reduced():
    assert len(REDUCED) > 2 * len(REFUSED)


def test_every_family_is_among_them():
    folders = {named(name).__module__.split(".")[2] for name in filter(is_there, REDUCED)}
    assert {family.folder for family in FAMILIES if is_there(family.example)} <= folders


def names_of(task):
    """The classes that transformers knows for a task."""
    for value in getattr(modeling_auto, f"MODEL_FOR_{task}_MAPPING_NAMES").values():
        yield from [value] if isinstance(value, str) else value


@pytest.mark.parametrize("task", TASKS)
def test_all_classes_of_a_family_stand_in_the_table(task):
    folders = {family.folder for family in FAMILIES}
    missing = []
    for name in names_of(task):
        kind = getattr(transformers, name)
        if kind.__module__.split(".")[2] in folders and name not in REDUCED:
            missing.append(name)
    assert missing == []


def test_a_family_is_added_as_the_guide_says(monkeypatch):
    guide = (Path(__file__).parents[2] / "CONTRIBUTING.md").read_text()
    (snippet,) = re.findall(r"```python\n(Family\(.*?\))\n```", guide, re.DOTALL)
    assert len(snippet.splitlines()) <= 5
    row = eval(snippet, vars(transformers_families))
    assert row in FAMILIES
    others = tuple(family for family in FAMILIES if family != row)
    monkeypatch.setattr(transformers_blocks, "FAMILIES", others)
    make = of(row.example)
    with pytest.raises(TypeError, match=f"{row.example}: no adapter knows this class"):
        batvit.patch(make())
    monkeypatch.setattr(transformers_blocks, "FAMILIES", (*others, row))
    assert check_backbone(make, pictures(make()), only="counts") == ["counts"]


def test_no_rows_repeat():
    for field in ("name", "module", "layer", "example"):
        assert len({getattr(family, field) for family in FAMILIES}) == len(FAMILIES), field


def test_files_of_other_families_are_not_imported():
    code = (
        "import sys, transformers, batvit, batvit.backbones.registry\n"
        "config = transformers.ViTConfig(num_hidden_layers=4)\n"
        "batvit.patch(transformers.ViTModel(config), keep_rate=0.5)\n"
        "batvit.backbones.registry.families()\n"
        "print(*(name for name in sys.modules if '.modeling_' in name))"
    )
    found = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    imported = set(found.stdout.split()) & {family.module for family in FAMILIES}
    assert imported == {"transformers.models.vit.modeling_vit"}
