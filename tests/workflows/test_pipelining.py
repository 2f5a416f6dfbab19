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
