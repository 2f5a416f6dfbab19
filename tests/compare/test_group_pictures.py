"""Pictures of groups: which plans and pictures are drawn, and what is said where that fails."""

import io

import numpy as np
import pytest
import timm
from PIL import Image

from batvit.compare.group_pictures import draw_groups
from batvit.compare.rows import Row, RowGroup
from batvit.config import BATConfig
from batvit.data.folder import image_folder
from batvit.inspection import groups


@pytest.fixture(scope="module")
def model():
    return timm.create_model(
        "deit_tiny_patch16_224", depth=6, embed_dim=48, num_classes=1, img_size=64
    )


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    root = tmp_path_factory.mktemp("pictures")
    (root / "cat").mkdir()
    for i in range(3):
        pixels = np.random.default_rng(i).integers(0, 256, (64, 64, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(root / "cat" / f"{i}.png")
    return image_folder(root)


def row(plan, target=0.5, at="macs", sites=1):
    config = BATConfig(tokens=tuple(range(12, 12 - sites, -1)), blocks=tuple(range(sites)))
    return Row(plan, RowGroup(target, at), config, (1,), (9,), 0.6, 0.5)


def test_plans_are_drawn_at_equal_macs_at_the_smallest_target(model, pictures):
    rows = [row("a"), row("a", at="time"), row("a", 0.3), row("b", 0.3), row("a", 0.2, "time")]
    drawn, notes = draw_groups(model, pictures, rows, number=2)
    assert [title for title, _ in drawn] == [
        "picture 1: a",
        "picture 1: b",
        "picture 2: a",
        "picture 2: b",
    ]
    assert notes == []
    assert all(png.startswith(b"\x89PNG") for _, png in drawn)
    assert draw_groups(model, pictures, rows, number=0) == ([], [])
    assert draw_groups(model, pictures, [row("a", at="time")], number=1) == ([], [])


def test_of_many_sites_the_last_alone_is_shown(model, pictures):
    rows = [row("few", sites=4), row("many", sites=5)]
    drawn, _ = draw_groups(model, pictures, rows, number=1)
    few, many = (Image.open(io.BytesIO(png)).width for _, png in drawn)
    assert many < few


def test_what_cannot_be_drawn_is_said_and_the_others_go_on(model, pictures, monkeypatch):
    draw = groups.draw

    def sometimes(image, trace):
        if len(trace.sites) == 2:
            raise KeyError("no such")
        return draw(image, trace)

    monkeypatch.setattr(groups, "draw", sometimes)
    drawn, notes = draw_groups(model, pictures, [row("a", sites=2), row("b")], number=1)
    assert [title for title, _ in drawn] == ["picture 1: b"]
    assert notes == ["picture 1: a is not drawn: 'no such'"]
