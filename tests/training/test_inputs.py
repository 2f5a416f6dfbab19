"""From --data to what a loop takes."""

import random
import shutil

import numpy as np
import pytest
import torch
from PIL import Image
from timm.models import VisionTransformer

from batvit.data.sources import find
from batvit.training import TrainConfig
from batvit.training.batches import Part, ignore_sigterm
from batvit.training.inputs import augmentation, prepare
from batvit.training.processes import counted_by


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


def test_where_all_processes_take_every_step_together_each_counts_all(monkeypatch):
    assert counted_by(Part(1, 2)) == Part(1, 2)
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    assert counted_by(Part(1, 2)) == Part(0, 1)


def test_splits_may_have_other_names(folder):
    (folder / "val").rename(folder / "held out")
    assert len(find(str(folder), splits=("train", "held out")).val) == 4


@pytest.mark.parametrize("part", ["train", "val"])
def test_a_class_that_is_empty_or_missing_in_one_part_is_refused(folder, part):
    for picture in (folder / part / "red").iterdir():
        picture.unlink()
    message = (
        f"{part}/red: holds no pictures; put some there, or remove the class from .*train and .*val"
    )
    with pytest.raises(ValueError, match=message):
        find(str(folder))
    (folder / part / "red").rmdir()
    with pytest.raises(ValueError, match=message):
        find(str(folder))


def test_a_class_that_is_empty_in_both_is_refused(folder):
    for part in ("train", "val"):
        (folder / part / "green").mkdir()
    with pytest.raises(ValueError, match="train/green: holds no pictures"):
        find(str(folder))


def test_pictures_of_one_class_are_refused(folder):
    for part in ("train", "val"):
        shutil.rmtree(folder / part / "red")
    with pytest.raises(
        ValueError, match=r"all pictures are of one class \(blue\); give two classes or more"
    ):
        find(str(folder))


def test_a_policy_may_keep_no_bits_of_a_picture():
    # at its highest magnitude the policy keeps none, and one in fifteen operations is this
    view = augmentation(vit(), TrainConfig(auto_augment="rand-m10-n5-inc1"))
    picture = Image.effect_noise((20, 20), 50).convert("RGB")
    random.seed(0)
    np.random.seed(0)
    views = [view(picture) for _ in range(100)]
    assert all(found.isfinite().all() for found in views)
    assert any((found == found[:, :1, :1]).all() for found in views)
