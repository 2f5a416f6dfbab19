"""The models of a training run: what learns, as it is to be trained, and its teacher."""

import pytest
import timm
import torch
from safetensors.torch import save_file

import batvit
from batvit.models.training_setup import training_models
from batvit.training import TrainConfig
from batvit.training.recipes import Choices

CLASSES = ("blue", "green", "red")


def choices(model="test_vit"):
    return Choices(model=model, train={}, reduction=None, pretrained=False)


def test_the_same_seed_makes_the_same_model_and_another_does_not():
    first, again = (training_models(choices(), TrainConfig(), CLASSES).model for _ in range(2))
    other = training_models(choices(), TrainConfig(seed=1), CLASSES).model
    state = first.state_dict()
    assert all(torch.equal(state[name], value) for name, value in again.state_dict().items())
    assert any(not torch.equal(state[name], value) for name, value in other.state_dict().items())


def test_it_is_patched_and_has_what_training_needs():
    reduction = batvit.BATConfig.preset("paper", keep_rate=0.5, blocks=(2,))
    config = TrainConfig(drop_path=0.2)
    model, teacher, note = training_models(choices(), config, CLASSES, reduction=reduction)
    assert batvit.config_of(model) == reduction
    assert model.num_classes == 3
    assert model.blocks[-1].drop_path1.drop_prob == pytest.approx(0.2)
    assert teacher is None
    assert note is None


@pytest.mark.parametrize("weight", [0.0, 0.5])
def test_an_lvvit_gives_the_logits_of_its_patches_if_they_are_learnt(weight):
    config = TrainConfig(token_labels=weight)
    lvvit = choices("lvvit_small_patch16_224")
    model = training_models(lvvit, config, CLASSES, image_size=(32, 32)).model
    assert model.token_labeling is (weight > 0)


def test_a_teacher_is_the_dense_model_of_its_file(tmp_path):
    path = tmp_path / "teacher.safetensors"
    state = timm.create_model("test_vit", num_classes=3).state_dict()
    save_file(state, path)
    config = TrainConfig(distill="soft")
    reduction = batvit.BATConfig.preset(keep_rate=0.5)
    made = training_models(choices(), config, CLASSES, reduction=reduction, teacher=path)
    assert torch.equal(made.teacher.head.weight, state["head.weight"])
    assert batvit.config_of(made.teacher) is None
    with pytest.raises(ValueError, match="nothing is to be learnt from it; give distill=soft"):
        training_models(choices(), TrainConfig(), CLASSES, teacher=path)
