"""The model that is trained: the head of its weights, or a new one; and its teacher."""

import argparse

import pytest
import timm
import torch
from safetensors.torch import save_file

from batvit.cli.training_model import teacher_model, training_model
from batvit.training import TrainConfig
from batvit.training.recipes import Choices

NAME = "test_vit"
CLASSES = ("blue", "green", "red")


def arguments(**given):
    names = ("checkpoint", "num_classes", "img_size", "teacher")
    return argparse.Namespace(**dict.fromkeys(names) | given)


def choices(*, pretrained=True, model=NAME):
    return Choices(model=model, train={}, reduction=None, pretrained=pretrained)


@pytest.fixture
def weights(tmp_path):
    """Files of a head for three classes and for a thousand."""

    def save(classes):
        torch.manual_seed(classes)
        state = timm.create_model(NAME, num_classes=classes).state_dict()
        save_file(state, tmp_path / f"{classes}.safetensors")
        return str(tmp_path / f"{classes}.safetensors"), state

    return save


def test_a_file_with_the_head_that_is_wanted_keeps_it(weights):
    path, state = weights(3)
    notes = []
    args = arguments(checkpoint=path)
    model = training_model(args, choices(), TrainConfig(), CLASSES, notes.append)
    assert torch.equal(model.head.weight, state["head.weight"])
    assert not notes


def test_a_file_with_another_head_gets_a_new_one_on_its_trunk(weights):
    path, state = weights(1000)
    notes = []
    args = arguments(checkpoint=path)
    model = training_model(args, choices(), TrainConfig(), CLASSES, notes.append)
    assert model.num_classes == 3
    assert torch.equal(model.pos_embed, state["pos_embed"])
    assert notes == ["a new head for 3 classes takes the place of the one for 1000"]


def test_a_file_that_fits_with_no_head_is_refused(weights):
    path, _ = weights(5)
    with pytest.raises(ValueError, match=r"head.weight has shape \(5, 64\)"):
        training_model(arguments(checkpoint=path), choices(), TrainConfig(), CLASSES, print)


def test_a_model_from_scratch_has_the_head_at_once():
    notes = []
    model = training_model(
        arguments(), choices(pretrained=False), TrainConfig(), CLASSES, notes.append
    )
    assert model.num_classes == 3
    assert not notes


def test_without_names_the_number_that_is_given_counts():
    args = arguments(num_classes=7, img_size=[64])
    model = training_model(args, choices(pretrained=False), TrainConfig(), None, print)
    assert model.num_classes == 7
    assert model.patch_embed.img_size == (64, 64)


@pytest.mark.parametrize("file", [3, 1000])
def test_without_names_a_file_with_either_head_will_do(weights, file):
    # as of tar shards, which do not tell their classes
    path, state = weights(file)
    notes = []
    args = arguments(checkpoint=path, num_classes=3)
    model = training_model(args, choices(), TrainConfig(), None, notes.append)
    assert model.num_classes == 3
    assert torch.equal(model.pos_embed, state["pos_embed"])
    assert torch.equal(model.head.weight, state["head.weight"]) == (file == 3)
    assert len(notes) == (file == 1000)


def test_without_names_a_file_of_other_classes_than_the_models_own_says_so(weights):
    path, _ = weights(5)
    args = arguments(checkpoint=path, num_classes=3)
    with pytest.raises(ValueError, match=r"head.weight has shape \(5, 64\)"):
        training_model(args, choices(), TrainConfig(), None, print)


def test_an_lvvit_gives_the_logits_of_its_patches_if_they_are_learnt():
    lvvit = choices(pretrained=False, model="lvvit_small_patch16_224")
    for weight in (0.0, 0.5):
        config = TrainConfig(token_labels=weight)
        model = training_model(arguments(img_size=[32]), lvvit, config, CLASSES, print)
        assert model.token_labeling is (weight > 0)


def test_a_teacher_is_made_of_its_file_where_something_is_learnt(weights):
    path, state = weights(3)
    assert teacher_model(arguments(), choices(), TrainConfig(), 3) is None
    args = arguments(teacher=path)
    teacher = teacher_model(args, choices(), TrainConfig(distill="soft"), 3)
    assert torch.equal(teacher.head.weight, state["head.weight"])
    with pytest.raises(ValueError, match="nothing is to be learnt from it; give --distill soft"):
        teacher_model(args, choices(), TrainConfig(), 3)
