"""Digits that need no download."""

import torch
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

from batvit.data.digits import digits

GREY = {"mean": (0.5,) * 3, "std": (0.5,) * 3}


def test_digits_are_split_the_same_way_every_time():
    (train, val), (again, _) = digits((16, 24), **GREY), digits((8, 8), **GREY)
    assert (len(train), len(val)) == (1437, 360)
    assert torch.equal(train.labels, again.labels)
    assert set(torch.bincount(val.labels).tolist()) == {35, 36, 37}
    picture, label = train[0]
    assert picture.shape == (3, 16, 24)
    assert -1 <= picture.min() < picture.max() <= 1
    assert label == train.labels[0]
    # at its own size a scan is left as it is
    assert torch.equal(again[0][0][0] / 2 + 0.5, again.scans[0])


def test_digits_are_those_of_scikit_learn_in_its_stratified_split():
    bunch = load_digits()
    order = train_test_split(
        range(len(bunch.target)), test_size=360, stratify=bunch.target, random_state=0
    )
    for split, indices in zip(digits((8, 8), **GREY), order, strict=True):
        scans = torch.tensor(1 - bunch.images[indices] / 16, dtype=torch.float32)
        assert torch.equal(split.scans, scans)
        assert torch.equal(split.labels, torch.tensor(bunch.target[indices]))
