"""Where a model of transformers takes images."""

import pytest
from transformers_models import REDUCED

import batvit
from batvit.backbones.registry import anatomy_of
from batvit.backbones.transformers_tower import tower_of
from batvit.reduction.block import ReducedBlock

TOWERS = {
    "ViTForImageClassification": "vit",
    "CLIPModel": "vision_model",
    "CLIPSegForImageSegmentation": "clip.vision_model",
    "ChineseCLIPModel": "vision_model",
    "OwlViTForObjectDetection": "owlvit.vision_model",
    "VisionEncoderDecoderModel": "encoder",
    "VisionTextDualEncoderModel": "vision_model",
    "DepthAnythingForDepthEstimation": "backbone",
    "LlavaForConditionalGeneration": "model.vision_tower",
    "PaliGemmaForConditionalGeneration": "model.vision_tower",
    "Idefics3ForConditionalGeneration": "model.vision_model",
    "InternVLForConditionalGeneration": "model.vision_tower",
    "BlipForConditionalGeneration": "vision_model",
    "Blip2ForConditionalGeneration": "vision_model",
    "FlavaModel": "image_model",
    "GitForCausalLM": "git.image_encoder",
    "Tipsv2Model": "vision_model",
    "ViTMAEForPreTraining": "vit",
}


@pytest.mark.parametrize("name", TOWERS)
def test_the_tower_is_found_and_nothing_else_is_reduced(name):
    model = REDUCED[name]()
    tower = tower_of(model)
    assert tower.owner is model.get_submodule(TOWERS[name])
    batvit.patch(model, keep_rate=0.5, blocks=(1, 2))
    inside = {block for block in tower.owner.modules() if isinstance(block, ReducedBlock)}
    assert inside == set(tower.layers[1:])
    assert {part for part in model.modules() if isinstance(part, ReducedBlock)} == inside


@pytest.mark.parametrize(
    ("name", "prefix"),
    [
        ("ViTModel", 1),
        ("DeiTModel", 2),
        ("PixioModel", 8),
        ("RadioModel", 10),
        ("DINOv3ViTModel", 3),
        ("YolosModel", 6),
        ("SiglipVisionModel", 0),
        ("CLIPVisionModel", 1),
    ],
)
def test_tokens_that_are_no_patches_are_counted(name, prefix):
    model = REDUCED[name]()
    anatomy = anatomy_of(model)
    assert anatomy.prefix == prefix
    assert anatomy.class_token == (prefix > 0)
