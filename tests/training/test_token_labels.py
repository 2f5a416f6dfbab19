"""A label for every token of an LV-ViT, though there are fewer tokens."""

from contextlib import nullcontext

import pytest
import torch
from timm.models import VisionTransformer

import batvit
from batvit.backbones.patch import during_training
from batvit.models.lvvit import LVViT
from batvit.training import TrainConfig, fit
from batvit.training.token_labels import TokenLabels, give_patch_logits

SIZES = {
    "img_size": 32,
    "patch_size": 8,
    "embed_dim": 16,
    "depth": 4,
    "num_heads": 2,
    "num_classes": 5,
}


def lvvit(seed, **options):
    torch.manual_seed(seed)
    return LVViT(**SIZES, **options)


@pytest.fixture
def images():
    return torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))


def patch_labels(teacher, images):
    """(B, 16, 5): what the dense model's second head says of each patch."""
    return teacher.aux_head(teacher.forward_features(images)[:, 1:]).softmax(dim=-1)


def test_a_dense_model_learns_the_label_of_each_patch(images):
    model, teacher = lvvit(0, token_labeling=True).train(), lvvit(1).eval()
    dense = model(images)[1]
    assert dense.shape == (2, 16, 5)
    expected = -(patch_labels(teacher, images) * dense.log_softmax(dim=-1)).sum(dim=-1).mean()
    torch.testing.assert_close(
        TokenLabels(model, teacher).loss(dense, images, nullcontext), expected
    )


def test_a_group_learns_the_mean_of_its_patches_as_often_as_it_has_some(images):
    model, teacher = lvvit(0, token_labeling=True), lvvit(1).eval()
    batvit.patch(model, mode="paper", tokens=(6,), blocks=(1,)).train()
    with batvit.trace(model) as trace:
        dense = model(images)[1]
    groups, labels = trace.sites[-1].origin.index, patch_labels(teacher, images)
    expected = torch.zeros(())
    for b in range(2):
        for group in range(6):
            members = groups[b] == group
            (logits,) = dense[b, members].unique(dim=0)
            expected -= (
                members.sum()
                * (labels[b, members].mean(dim=0) * logits.log_softmax(dim=-1)).sum()
                / (2 * 16)
            )
    torch.testing.assert_close(
        TokenLabels(model, teacher).loss(dense, images, nullcontext), expected
    )


def test_training_with_token_labels_moves_the_second_head(images):
    reduction = batvit.BATConfig.preset("paper", tokens=(6,), blocks=(1,))
    data = torch.utils.data.TensorDataset(images.repeat(4, 1, 1, 1), torch.tensor([0, 1] * 4))
    val = [(images, torch.tensor([0, 1]))]
    moved = []
    for weight in (0.0, 2.0):
        model = batvit.patch(lvvit(0, token_labeling=weight > 0), reduction)
        before = model.aux_head.bias.detach().clone()
        config = TrainConfig(epochs=1, batch_size=4, lr=1e-2, opt="sgd", token_labels=weight)
        teacher = lvvit(1) if weight else None
        fit(model, data, val, config, reduce=during_training(reduction), teacher=teacher)
        moved.append((model.aux_head.bias - before).abs().sum())
    assert moved[1] > 0
    assert moved[0] != moved[1]


def test_what_has_no_labels_for_tokens_is_refused():
    plain = VisionTransformer(**SIZES)
    with pytest.raises(
        ValueError,
        match="token_labels are for LV-ViT, the model is a VisionTransformer; leave them out",
    ):
        TokenLabels(plain, lvvit(0))
    with pytest.raises(ValueError, match="the teacher is a VisionTransformer"):
        TokenLabels(lvvit(0, token_labeling=True), plain)
    with pytest.raises(ValueError, match=r"set model.token_labeling = True, then patch it"):
        TokenLabels(lvvit(0), lvvit(0))


def test_a_model_gives_the_logits_of_its_patches_if_it_is_told_to():
    model = lvvit(0)
    give_patch_logits(model)
    TokenLabels(model, lvvit(0))
    plain = VisionTransformer(**SIZES)
    give_patch_logits(plain)
    assert not hasattr(plain, "token_labeling")


def test_a_reduction_that_drops_tokens_is_refused(images):
    model = batvit.patch(
        lvvit(0, token_labeling=True), method="topk", tokens=(6,), blocks=(1,)
    ).train()
    with pytest.raises(
        ValueError,
        match="labels for 16 patches, the model gives logits for 6: its reduction drops tokens",
    ):
        TokenLabels(model, lvvit(1).eval()).loss(model(images)[1], images, nullcontext)
