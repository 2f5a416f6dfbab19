"""A head for other classes."""

import pytest
import timm
import torch
from timm.data import ImageNetInfo

import batvit.models  # noqa: F401, it brings lvvit
from batvit.models.classifier_head import replace_head

SYNSETS = ImageNetInfo("imagenet-1k").label_names()
NAMES = (SYNSETS[900], SYNSETS[3], SYNSETS[42])
TINY = {"img_size": 32, "patch_size": 8, "embed_dim": 16, "depth": 4, "num_heads": 2}


@pytest.mark.parametrize(
    ("name", "heads"),
    [
        ("deit_tiny_patch16_224", ("head",)),
        ("deit_tiny_distilled_patch16_224", ("head", "head_dist")),
        ("lvvit_small_patch16_224", ("head", "aux_head")),
    ],
)
def test_classes_that_imagenet_knows_keep_their_rows(name, heads):
    torch.manual_seed(0)
    model = timm.create_model(name, **TINY)
    before = {
        head: (getattr(model, head).weight.clone(), getattr(model, head).bias.clone())
        for head in heads
    }
    assert (
        replace_head(model, 3, NAMES)
        == "the head for 3 classes takes over their rows of the one for 1000"
    )
    for head, (weight, bias) in before.items():
        assert torch.equal(getattr(model, head).weight, weight[[900, 3, 42]])
        assert torch.equal(getattr(model, head).bias, bias[[900, 3, 42]])
    assert model(torch.zeros(1, 3, 32, 32)).shape == (1, 3)


@pytest.mark.parametrize(
    ("classes", "names"), [(3, ("cat", "dog", NAMES[0])), (3, None), (4, None)]
)
def test_other_classes_get_a_new_head(classes, names):
    torch.manual_seed(0)
    model = timm.create_model("deit_tiny_patch16_224", **TINY)
    old = model.head.weight.clone()
    said = replace_head(model, classes, names)
    assert said == f"a new head for {classes} classes takes the place of the one for 1000"
    assert not any(torch.equal(row, other) for row in model.head.weight for other in old)


def test_a_head_of_other_classes_has_no_rows_of_imagenet():
    model = timm.create_model("deit_tiny_patch16_224", num_classes=12, **TINY)
    assert (
        replace_head(model, 3, NAMES)
        == "a new head for 3 classes takes the place of the one for 12"
    )
