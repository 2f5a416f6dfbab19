"""Models by name: the weights of a file, another image size, and names that are wrong."""

import pytest
import timm
import torch
from safetensors.torch import save_file
from torch import nn

from batvit.models.create import create_model, create_with_head
from batvit.storage.weights import read_weights

NAME = "deit_tiny_patch16_224"


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """Random weights of a DeiT-Ti for five classes, at its own image size."""
    path = tmp_path_factory.mktemp("weights") / "deit.safetensors"
    save_file(timm.create_model(NAME, num_classes=5).state_dict(), path)
    return path


def test_a_model_is_created_with_the_weights_of_a_file(weights):
    model = create_model(NAME, checkpoint=weights, num_classes=5, pretrained=True)
    assert torch.equal(model.head.weight, read_weights(weights)["head.weight"])


def test_weights_for_another_number_of_classes_are_refused(weights):
    with pytest.raises(
        ValueError,
        match=r"head.weight has shape \(5, 192\), the model needs \(1000, 192\); "
        ".*number of classes",
    ):
        create_model(NAME, checkpoint=weights)


def test_weights_for_another_model_are_refused(weights):
    with pytest.raises(ValueError, match=r"3 missing, the first is 'dist_token'"):
        create_model("deit_tiny_distilled_patch16_224", checkpoint=weights, num_classes=5)


def test_weights_are_resampled_to_another_image_size(weights):
    model = create_model(NAME, checkpoint=weights, num_classes=5, image_size=(64, 96))
    assert model.patch_embed.grid_size == (4, 6)
    assert model.pos_embed.shape == (1, 25, 192)
    # the class token's place is not resampled
    assert torch.equal(model.pos_embed[:, 0], read_weights(weights)["pos_embed"][:, 0])


def test_weights_saved_at_another_image_size_load_at_that_size(weights, tmp_path):
    model = create_model(NAME, checkpoint=weights, num_classes=5, image_size=(64, 96))
    path = tmp_path / "finetuned.safetensors"
    save_file(model.state_dict(), path)
    again = create_model(NAME, checkpoint=path, num_classes=5, image_size=(64, 96))
    assert all(
        torch.equal(value, again.state_dict()[key]) for key, value in model.state_dict().items()
    )
    with pytest.raises(
        ValueError,
        match=r"pos_embed has shape \(1, 25, 192\), the model needs \(1, 197, 192\); .*image size",
    ):
        create_model(NAME, checkpoint=path, num_classes=5)


@pytest.mark.parametrize(
    ("name", "size", "said"),
    [
        (
            NAME,
            (64, 65),
            "64 x 65 pixels cannot be cut into the 16 x 16 patches of deit_tiny_patch16_224; "
            "give multiples",
        ),
        (NAME, (8, 8), "8 x 8 pixels cannot be cut into"),
        ("resnet10t", (64, 64), "resnet10t cannot change its image size to 64 x 64 pixels"),
    ],
)
def test_an_image_size_that_does_not_fit_is_refused(name, size, said):
    with pytest.raises(ValueError, match=said):
        create_model(name, image_size=size)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("deit_tny", r"unknown model 'deit_tny'; did you mean .*deit_tiny_patch16_224"),
        ("deit_tiny_patch16_244", r"did you mean .*deit_tiny_patch16_224"),
        ("vit_bsae_patch16_224", r"did you mean vit_base_patch16_224"),
        ("", r"unknown model ''; see timm.list_models\(\)"),
        ("qqqqqq", r"unknown model 'qqqqqq'; see timm.list_models\(\)"),
        (
            "deit_tiny_patch16_224.mine",
            r"unknown weights '.*\.mine'; there are deit_tiny_patch16_224\.fb_in1k",
        ),
    ],
)
def test_an_unknown_model_is_answered_with_near_names(name, said):
    with pytest.raises(ValueError, match=said):
        create_model(name)


def test_a_name_with_its_weights_is_known():
    assert create_model(f"{NAME}.fb_in1k", num_classes=2).num_classes == 2


def test_without_a_head_there_are_no_classes():
    assert isinstance(create_model(NAME, num_classes=0).head, nn.Identity)
    with pytest.raises(
        ValueError, match="num_classes must be 1 or more, or 0 for a model without a head, got -1"
    ):
        create_model(NAME, num_classes=-1)


def test_without_a_network_the_remedy_is_a_file(monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(
        OSError,
        match=r"no pretrained weights of deit_tiny_patch16_224 could be had \(.+\); "
        "give checkpoint=FILE",
    ):
        create_model(NAME, pretrained=True)
    with pytest.raises(
        OSError, match=r"hf-hub:some/model could not be had \(.+\); give the name of a timm model"
    ):
        create_model("hf-hub:some/model")


def test_what_is_wrong_inside_timm_is_not_hidden(monkeypatch):
    def broken(*args, **settings):
        raise RuntimeError("inside timm")

    monkeypatch.setattr(timm, "create_model", broken)
    with pytest.raises(RuntimeError, match="inside timm"):
        create_model(NAME)


# heads

CLASSES = ("blue", "green", "red")


@pytest.fixture
def headed(tmp_path):
    """Save the weights of a model with a head for so many classes."""

    def save(classes):
        torch.manual_seed(classes)
        state = timm.create_model("test_vit", num_classes=classes).state_dict()
        save_file(state, tmp_path / f"{classes}.safetensors")
        return tmp_path / f"{classes}.safetensors", state

    return save


def test_a_file_with_the_head_that_is_wanted_keeps_it(headed):
    path, state = headed(3)
    model, note = create_with_head("test_vit", CLASSES, checkpoint=path)
    assert torch.equal(model.head.weight, state["head.weight"])
    assert note is None


def test_a_file_with_another_head_gets_a_new_one_on_its_trunk(headed):
    path, state = headed(1000)
    model, note = create_with_head("test_vit", CLASSES, checkpoint=path)
    assert model.num_classes == 3
    assert torch.equal(model.pos_embed, state["pos_embed"])
    assert note == "a new head for 3 classes takes the place of the one for 1000"


def test_a_file_that_fits_with_no_head_is_refused(headed):
    path, _ = headed(5)
    with pytest.raises(ValueError, match=r"head.weight has shape \(5, 64\)"):
        create_with_head("test_vit", CLASSES, checkpoint=path)
    # unless it is said how many classes its head has
    model, note = create_with_head("test_vit", CLASSES, checkpoint=path, num_classes=5)
    assert model.num_classes == 3
    assert "the one for 5" in note


def test_a_model_from_scratch_has_the_head_at_once():
    model, note = create_with_head("test_vit", CLASSES)
    assert model.num_classes == 3
    assert note is None


def test_without_names_the_number_that_is_given_counts():
    model, note = create_with_head("test_vit", None, num_classes=7, image_size=(64, 64))
    assert (model.num_classes, note) == (7, None)
    assert model.patch_embed.img_size == (64, 64)
    # and without either the model's own
    assert create_with_head("test_vit", None).model.num_classes == 1000


@pytest.mark.parametrize("file", [3, 1000])
def test_without_names_a_file_with_either_head_will_do(headed, file):
    # as of tar shards, which do not tell their classes
    path, state = headed(file)
    model, note = create_with_head("test_vit", None, num_classes=3, checkpoint=path)
    assert model.num_classes == 3
    assert torch.equal(model.pos_embed, state["pos_embed"])
    assert torch.equal(model.head.weight, state["head.weight"]) == (file == 3)
    assert (note is None) == (file == 3)


def test_without_names_a_file_of_other_classes_than_the_models_own_says_so(headed):
    path, _ = headed(5)
    with pytest.raises(ValueError, match=r"head.weight has shape \(5, 64\)"):
        create_with_head("test_vit", None, num_classes=3, checkpoint=path)
