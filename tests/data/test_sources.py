"""Training and validation pictures, by the name of what holds them."""

import shutil

import pytest
from PIL import Image

from batvit.data.sources import find


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


def test_digits_need_no_folder():
    sources = find("digits")
    assert sources.classes == tuple("0123456789")
    assert (len(sources.train), len(sources.val)) == (1437, 360)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"splits": ("train", "test")}, r"digits: .* got splits=\(train, test\); leave"),
        ({"class_map": "map.txt"}, "digits: a class map .* are for image folders; leave them out"),
        ({"skip_unreadable": True}, "digits: .* are for image folders; leave them out"),
    ],
)
def test_what_digits_have_no_use_for_is_refused(options, message):
    with pytest.raises(ValueError, match=message):
        find("digits", **options)


@pytest.mark.parametrize("data", ["digits", "hfds/x", "wds/x", "{folder}"])
def test_the_same_split_twice_is_refused(folder, data):
    with pytest.raises(ValueError, match=r"splits=\(train, train\): .*; give two splits"):
        find(data.format(folder=folder), splits=("train", "train"))


def test_the_same_folder_by_two_names_is_refused(folder):
    (folder / "held out").symlink_to(folder / "train")
    with pytest.raises(ValueError, match=r"train and .*held out are the same folder; give"):
        find(str(folder), splits=("train", "held out"))
