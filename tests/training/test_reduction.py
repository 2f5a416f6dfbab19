"""The reduction that a model carries, as training sees it."""

import json

import torch
from timm.models import VisionTransformer
from torch import nn

import batvit
from batvit.training.reduction import reduction_of

CONFIG = batvit.BATConfig.preset("paper", keep_rate=0.5)


def vit():
    torch.manual_seed(0)
    return VisionTransformer(
        img_size=16, patch_size=4, embed_dim=16, depth=4, num_heads=2, num_classes=3
    ).eval()


def test_a_patched_model_carries_its_reduction_and_another_none():
    assert reduction_of(vit()) is None
    assert reduction_of(nn.Linear(2, 2)) is None
    assert reduction_of(batvit.patch(vit(), CONFIG)).describe() == CONFIG.to_dict()
    # wrapped, it is found too
    assert reduction_of(nn.Sequential(batvit.patch(vit(), CONFIG))) is not None


def test_it_is_described_in_plain_values():
    reduction = reduction_of(batvit.patch(vit(), CONFIG))
    described = json.loads(json.dumps(reduction.describe()))
    assert described.keys() == reduction.defaults().keys()


def test_it_is_saved_beside_weights(tmp_path):
    reduction_of(batvit.patch(vit(), CONFIG)).save_beside(tmp_path / "best.safetensors")
    assert batvit.BATConfig.beside(tmp_path / "best.safetensors") == CONFIG


def test_the_dense_copy_is_the_model_as_it_was_and_the_model_stays_reduced():
    images = torch.randn(2, 3, 16, 16)
    model = batvit.patch(vit(), CONFIG)
    twin = reduction_of(model).dense_copy(model)
    assert torch.equal(twin(images), vit()(images))
    assert batvit.config_of(model) == CONFIG
