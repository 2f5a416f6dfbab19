"""One picture: what is drawn of its groups, and what is told."""

import pytest
import timm
import torch

import batvit
from batvit.data.loading import data_config
from batvit.inspection.drawing import draw, from_tensor
from batvit.inspection.groups import groups_of


def model(**fields):
    torch.manual_seed(0)
    dense = timm.create_model(
        "deit_tiny_patch16_224", depth=4, embed_dim=48, num_classes=3, img_size=64
    )
    return batvit.patch(dense, **fields)


@pytest.fixture(scope="module")
def image():
    return torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))


def test_the_drawing_is_of_the_pass_that_is_told(image):
    patched = model(tokens=(8, 5), blocks=(1, 2))
    drawing, traced = groups_of(patched, image)
    with batvit.trace(patched) as expected, torch.no_grad():
        patched(image)
    settings = data_config(patched)
    again = draw(from_tensor(image[0], settings["mean"], settings["std"]), expected)
    assert drawing.tobytes() == again.tobytes()
    plain = traced.to_dict()
    assert plain["grid"] == (4, 4)
    assert [site["block"] for site in plain["sites"]] == [1, 2]
    assert [site["tokens_out"] for site in plain["sites"]] == [8, 5]
    assert plain["sites"][1]["groups"] == expected.sites[1].origin.index[0].tolist()
    assert set(plain["sites"][1]["groups"]) == set(range(5))


@pytest.mark.parametrize(("most", "panels"), [(None, 3), (3, 3), (2, 1)])
def test_of_more_sites_than_asked_for_the_last_alone_is_drawn(image, most, panels):
    patched = model(tokens=(9, 7, 5), blocks=(1, 2, 3))
    _, traced = groups_of(patched, image, most_sites=most)
    assert len(traced.sites) == panels
    assert traced.sites[-1].counts.block == 3


def test_what_cannot_be_drawn_says_why(image):
    with pytest.raises(ValueError, match="not patched"):
        groups_of(batvit.unpatch(model(keep_rate=0.7)), image)
    broken = model(keep_rate=0.7)
    torch.nn.init.constant_(broken.head.bias, torch.nan)
    with pytest.raises(ValueError, match="the model: logits are not finite"):
        groups_of(broken, image)
