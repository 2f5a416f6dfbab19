"""What is known of a model, whatever library it comes from."""

import pytest
import timm
import torch
from families import pictures
from multihead_models import small

import batvit
from batvit.backbones.registry import anatomy_of


@pytest.mark.parametrize("name", ["vit_tiny_patch16_224", "lvvit_small_patch16_224"])
def test_pictures_may_have_other_channels_than_three(name):
    model = batvit.patch(timm.create_model(name, img_size=64, depth=4, in_chans=1), keep_rate=0.5)
    found = batvit.info(model)
    assert found.macs < found.dense_macs
    with batvit.trace(model) as trace:
        model.eval()(torch.randn(2, 1, 64, 64))
    assert "clusters" in str(trace)


@torch.no_grad()
def test_what_reads_patches_is_given_one_for_each():
    model = batvit.patch(small("open_clip_tokens"), tokens=(6,), blocks=(2,))
    _, tokens = model(pictures(model))
    assert tokens.shape == (2, 36, 48)
    assert all(len(tokens[i].unique(dim=0)) == 6 for i in range(2))
    for name, reads in {
        "open_clip": True,
        "open_clip_mean": True,
        "open_clip_pooler": True,
        "torchvision": False,
    }.items():
        last = anatomy_of(batvit.patch(small(name), tokens=(6,), blocks=(2,))).blocks[-1]
        assert last.output_form == ("grid" if reads else "tensor")
