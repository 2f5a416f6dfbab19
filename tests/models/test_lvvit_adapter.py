"""What a patch needs to know of LV-ViT: which heads read the patches."""

import copy

import pytest
import timm
import torch

import batvit
import batvit.models
from batvit.backbones.registry import adapter_of, anatomy_of
from batvit.models.lvvit_adapter import ADAPTER


def tiny(**settings):
    """Three blocks of 3 heads with 24 features, 16 patches, 5 classes."""
    torch.manual_seed(0)
    sizes = {"img_size": 64, "embed_dim": 24, "depth": 3, "num_heads": 3, "num_classes": 5}
    return timm.create_model("lvvit_small_patch16_224", **(sizes | settings)).eval()


def pictures():
    return torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(1))


def test_it_is_registered_once_the_models_are_imported():
    assert adapter_of(tiny()) is ADAPTER


@pytest.mark.parametrize("token_labeling", [False, True])
def test_labels_are_for_patches_so_they_need_the_grid(token_labeling):
    anatomy = anatomy_of(tiny(token_labeling=token_labeling))
    assert anatomy.reads_patches == token_labeling
    # the second head reads what is left of the patches
    assert not anatomy.reads_prefix_only


def test_a_reduced_model_labels_every_patch():
    model = batvit.patch(tiny(token_labeling=True), keep_rate=0.5, blocks=(1,)).train()
    classes, dense = model(pictures())
    assert classes.shape == (2, 5)
    assert dense.shape == (2, 16, 5)


@pytest.mark.parametrize("pool", ["avg", ""])
def test_features_of_a_reduced_model_are_of_all_patches(pool):
    dense = tiny(num_classes=0, global_pool=pool)
    model = batvit.patch(copy.deepcopy(dense), keep_rate=0.5, blocks=(1,))
    tokens = model.forward_features(pictures())
    assert tokens.shape == (2, 17, 24)
    assert len(tokens[0].unique(dim=0)) < 17
    torch.testing.assert_close(model(pictures()), dense.forward_head(tokens))
