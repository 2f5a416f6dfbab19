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


def test_another_pooling_set_by_hand_is_followed():
    model = family("dinov2")
    batvit.patch(model, mode="gradual", keep_rate=0.5)
    x = pictures(model)
    by_token = model(x)
    model.global_pool = "avg"
    assert model(x).isfinite().all()
    other = family("dinov2")
    other.global_pool = "avg"
    assert torch.equal(model(x), batvit.patch(other, mode="gradual", keep_rate=0.5)(x))
    model.global_pool = "token"
    assert torch.equal(model(x), by_token)


POOLED_BY_HAND = {
    "mean": lambda features, prefix: features[:, prefix:].mean(1),
    "of one image": lambda features, prefix: features[0, prefix:].mean(0),
    "narrow": lambda features, prefix: features.narrow(1, prefix, 0).mean(1),
}


@pytest.mark.parametrize("how", POOLED_BY_HAND)
@pytest.mark.parametrize("name", ["deit", "dinov2", "dinov2_registers"])
def test_prefix_tokens_alone_are_not_pooled_as_patches(name, how):
    model = batvit.patch(family(name), mode="gradual", keep_rate=0.5)
    x = pictures(model)
    pool = POOLED_BY_HAND[how]
    features = model.forward_features(x)
    assert torch.equal(model.forward_head(features), model(x))
    with pytest.raises(ValueError, match="prefix_only=False"):
        pool(features, model.num_prefix_tokens)
    heard = []
    model.blocks[-1].register_forward_hook(lambda module, args, output: heard.append(output))
    model(x)
    with pytest.raises(ValueError, match="prefix_only=False"):
        pool(heard[0], model.num_prefix_tokens)


def test_whatever_gives_prefix_tokens_alone_refuses_to_be_pooled():
    model = batvit.patch(family("deit"), mode="gradual", keep_rate=0.5)
    x = model._pos_embed(model.patch_embed(pictures(model)))
    with pytest.raises(ValueError, match="prefix_only=False"):
        model.blocks(x)[:, 1:].mean(1)
    heard = []
    model.norm.register_forward_hook(lambda module, args, output: heard.append(output))
    logits = model(pictures(model))
    assert type(logits) is torch.Tensor
    with pytest.raises(ValueError, match="prefix_only=False"):
        heard[0][:, 1:].mean(1)


def test_pooling_asked_of_the_head_is_refused_too():
    model = batvit.patch(family("deit"), mode="gradual", keep_rate=0.5)
    with pytest.raises(ValueError, match="prefix_only=False"):
        model.pool(model.forward_features(pictures(model)), pool_type="avg")
