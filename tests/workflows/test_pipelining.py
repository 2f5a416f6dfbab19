"""torch's pipelining of a patched model: the tokens travel from stage to stage as tensors."""

import pytest
import timm
import torch
import torchvision
from torch.distributed.pipelining import SplitPoint, pipeline

import batvit
from batvit.testing.run_contract import randomised

MODELS = {
    "blocks.2": lambda: timm.create_model("test_vit", img_size=48, patch_size=8, depth=4),
    "encoder.layers.encoder_layer_2": lambda: torchvision.models.VisionTransformer(
        48, 8, 4, 4, 48, 96
    ),
}


@pytest.mark.unchecked
@pytest.mark.parametrize("cut", MODELS)
@torch.no_grad()
def test_stages_give_what_the_model_gives(cut):
    model = batvit.patch(randomised(MODELS[cut]()), keep_rate=0.5, blocks=(1, 2))
    images = torch.randn(2, 3, 48, 48)
    expected = model(images)
    stages = pipeline(model, (images,), split_spec={cut: SplitPoint.BEGINNING})
    between = stages.get_stage_module(0)(images)
    # fewer than the 36 patches and the class token
    assert between[0].shape[1] < 37
    torch.testing.assert_close(stages.get_stage_module(1)(*between), expected)


@pytest.mark.unchecked
@pytest.mark.parametrize("mode", ["training-free", "gradual", "paper"])
@pytest.mark.parametrize("cut", MODELS)
def test_stages_have_the_gradients_of_the_model(cut, mode):
    sites = {} if mode == "gradual" else {"blocks": (1, 2)}
    model = batvit.patch(randomised(MODELS[cut]()), mode=mode, keep_rate=0.5, **sites)
    model.requires_grad_(True)
    images = torch.randn(2, 3, 48, 48)
    model(images).square().mean().backward()
    expected = {name: weight.grad for name, weight in model.named_parameters()}
    stages = pipeline(model, (images,), split_spec={cut: SplitPoint.BEGINNING})
    between = stages.get_stage_module(0)(images)
    between = between if isinstance(between, tuple) else (between,)
    model.zero_grad()
    stages.get_stage_module(1)(*between).square().mean().backward()
    found = {}
    for stage in range(2):
        for name, weight in stages.get_stage_module(stage).named_parameters():
            found[name] = weight.grad
    assert found.keys() == expected.keys()
    for name, gradient in expected.items():
        torch.testing.assert_close(found[name], gradient)
