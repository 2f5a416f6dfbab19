"""What timm's models have in common: heads, image sizes, training."""

import copy

import pytest
import timm
import torch
from families import family, pictures

import batvit


def small(name, **settings):
    return timm.create_model(name, depth=4, embed_dim=48, num_heads=3, **settings).eval()


def test_another_pooling_is_followed():
    model = family("vit")
    other = copy.deepcopy(model)
    torch.manual_seed(0)
    batvit.patch(model, keep_rate=0.5).reset_classifier(0, "avg")
    other.reset_classifier(0, "avg")
    batvit.patch(other, keep_rate=0.5)
    with torch.no_grad():
        assert torch.equal(model(pictures(model)), other(pictures(model)))
    model.reset_classifier(0, "token")
    assert model.blocks[-1].output_form == "tensor"
    batvit.unpatch(model).reset_classifier(0, "avg")


def test_an_image_size_that_the_model_does_not_take_is_refused():
    with pytest.raises(ValueError, match="takes images of 224 x 224, got 384 x 384"):
        batvit.info(small("deit_tiny_patch16_224"), image_size=(384, 384))
