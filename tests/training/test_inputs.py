"""From opened pictures to what a loop takes."""

import random

import numpy as np
import pytest
import torch
from PIL import Image
from timm.models import VisionTransformer

from batvit.data.digits import digits
from batvit.data.loading import data_config
from batvit.data.sources import find
from batvit.training import TrainConfig
from batvit.training.batches import Part, ignore_sigterm
from batvit.training.inputs import augmentation, prepare


def vit():
    return VisionTransformer(
        img_size=16, patch_size=4, embed_dim=16, depth=4, num_heads=2, num_classes=3
    )


@pytest.fixture
def folder(tmp_path):
    for part, number in (("train", 4), ("val", 2)):
        for name in ("blue", "red"):
            (tmp_path / part / name).mkdir(parents=True)
            for i in range(number):
                Image.effect_noise((20, 20), 50).convert("RGB").save(
                    tmp_path / part / name / f"{i}.png"
                )
    return tmp_path


def test_a_folder_gives_views_to_train_on_and_all_of_val_to_count(folder):
    found = find(str(folder))
    assert found.classes == ("blue", "red")
    train, val = prepare(found, vit(), TrainConfig(batch_size=4), Part())
    assert len(train) == 8
    assert train[0][0].shape == (3, 16, 16)
    assert torch.cat([labels for _, labels in val]).tolist() == [0, 0, 1, 1]
    halves = [prepare(found, vit(), TrainConfig(batch_size=4), Part(rank, 2))[1] for rank in (0, 1)]
    assert [torch.cat([labels for _, labels in half]).tolist() for half in halves] == [
        [0, 1],
        [0, 1],
    ]


def test_all_that_read_pictures_leave_sigterm_to_the_process_that_trains(folder):
    _, val = prepare(find(str(folder)), vit(), TrainConfig(batch_size=4), Part())
    assert val.worker_init_fn is ignore_sigterm


def test_a_policy_may_keep_no_bits_of_a_picture():
    # at its highest magnitude the policy keeps none, and one in fifteen operations is this
    view = augmentation(vit(), TrainConfig(auto_augment="rand-m10-n5-inc1"))
    picture = Image.effect_noise((20, 20), 50).convert("RGB")
    random.seed(0)
    np.random.seed(0)
    views = [view(picture) for _ in range(100)]
    assert all(found.isfinite().all() for found in views)
    assert any((found == found[:, :1, :1]).all() for found in views)


def test_augmentation_gives_random_views_of_the_size_of_the_model():
    model = vit()
    view = augmentation(model, TrainConfig(auto_augment="rand-m9-mstd0.5-inc1", reprob=1.0))
    picture = Image.effect_noise((40, 30), 50).convert("RGB")
    first, second = view(picture), view(picture)
    assert first.shape == data_config(model)["input_size"] == (3, 16, 16)
    assert not torch.equal(first, second)


def test_colours_change_and_rectangles_go_as_often_as_they_are_asked_to():
    grey = Image.new("RGB", (40, 30), (128, 128, 128))
    torch.manual_seed(0)
    random.seed(0)

    model = vit()
    mean, std = (torch.tensor(data_config(model)[name]).view(3, 1, 1) for name in ("mean", "std"))

    def kinds(**fields):
        """How many views of twenty are another grey, and how many are not of one colour."""
        view = augmentation(model, TrainConfig(**fields))
        views = [view(grey) * std + mean for _ in range(20)]
        plain = [found for found in views if float(found.max() - found.min()) < 0.01]
        return sum(abs(float(found.mean()) - 128 / 255) > 0.01 for found in plain), len(
            views
        ) - len(plain)

    assert kinds(color_jitter=0.0, reprob=0.0) == (0, 0)
    changed, erased = kinds(color_jitter=0.4)
    assert changed > 10
    assert erased == 0
    assert kinds(color_jitter=0.0, reprob=1.0) == (0, 20)
    assert 0 < kinds(color_jitter=0.0, reprob=0.5)[1] < 20


def test_digits_are_sized_for_the_model_and_never_mirrored():
    sources = find("digits")
    train, val = prepare(sources, vit(), TrainConfig(batch_size=50), Part(1, 2))
    settings = data_config(vit())
    expected, _ = digits((16, 16), mean=settings["mean"], std=settings["std"])
    assert torch.equal(train[0][0], expected[0][0])
    assert torch.equal(train[0][0], train[0][0])
    # this process counts half of them
    assert [len(labels) for _, labels in val] == [50, 50, 50, 30]
