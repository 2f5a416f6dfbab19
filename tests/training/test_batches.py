"""Which pictures go into which update."""

import random

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.utils.data import Dataset, TensorDataset

from batvit.data.tar_shards import Stream
from batvit.training import TrainConfig
from batvit.training.batches import Batching, BatchSampler, Part, Views, split_batch


class Noise(Dataset):
    """Pictures that are as random as augmentation makes them."""

    def __len__(self):
        return 20

    def __getitem__(self, index):
        return torch.tensor([index, random.random(), np.random.rand(), torch.rand(())]), index


def keys(batch):
    return [(0, picture, 0) for picture in range(batch)]


def batches_of(config, part, *, epoch=1, size=20, done=0):
    train = TensorDataset(torch.zeros(size, 3, 4, 4), torch.zeros(size, dtype=torch.long))
    return list(BatchSampler(Batching(train, config, part), epoch, done))


def test_a_batch_is_dealt_by_hand():
    def parts(batch, number):
        return [
            [picture for _, picture, _ in split_batch(keys(batch), part, number)]
            for part in range(number)
        ]

    # of two parts each has two from the front and their two mirrors from the back
    assert parts(8, 2) == [[0, 1, 6, 7], [2, 3, 4, 5]]
    assert parts(8, 4) == [[0, 7], [1, 6], [2, 5], [3, 4]]
    # odd parts have no mirrors
    assert parts(6, 2) == [[0, 1, 2], [3, 4, 5]]


@given(st.integers(1, 6), st.integers(1, 4))
def test_the_mirror_of_a_picture_stays_in_its_part(half, parts):
    whole = keys(2 * half * parts)
    shares = [split_batch(whole, part, parts) for part in range(parts)]
    assert sorted(key for share in shares for key in share) == whole
    mirror = dict(zip(whole, reversed(whole), strict=True))
    for share in shares:
        assert [mirror[key] for key in share] == share[::-1]


@given(st.integers(0, 100), st.sampled_from([(1, 1), (1, 4), (2, 2), (4, 1), (2, 1), (1, 2)]))
def test_processes_and_accumulated_parts_share_the_same_updates(seed, split):
    processes, steps = split
    config = TrainConfig(batch_size=8, seed=seed, grad_accum_steps=steps)
    mine = [batches_of(config, Part(rank, processes)) for rank in range(processes)]
    assert {len(batches) for batches in mine} == {2 * steps}
    for update, whole in enumerate(batches_of(TrainConfig(batch_size=8, seed=seed), Part())):
        shared = [
            key
            for batches in mine
            for batch in batches[update * steps : (update + 1) * steps]
            for key in batch
        ]
        assert sorted(shared) == sorted(whole)


def test_an_epoch_has_every_picture_once_and_the_next_another_order():
    config = TrainConfig(batch_size=5)
    first, again, second = (batches_of(config, Part(), epoch=epoch) for epoch in (1, 1, 2))
    assert sorted(picture for batch in first for _, picture, _ in batch) == list(range(20))
    assert first == again
    assert [picture for batch in first for _, picture, _ in batch] != [
        picture for batch in second for _, picture, _ in batch
    ]
    # what does not fill a batch is left out
    assert len(batches_of(TrainConfig(batch_size=8), Part())) == 2


def test_repeated_augmentation_has_other_views_of_fewer_pictures():
    found = [
        key
        for batch in batches_of(TrainConfig(batch_size=5, aug_repeats=3), Part())
        for key in batch
    ]
    assert len(found) == len(set(found)) == 20
    # seven pictures three times, the last of them twice
    pictures = [picture for _, picture, _ in found]
    assert sorted(pictures.count(picture) for picture in set(pictures)) == [2, 3, 3, 3, 3, 3, 3]


def test_from_the_middle_of_an_epoch_the_same_batches_come():
    config = TrainConfig(batch_size=4, grad_accum_steps=2)
    assert batches_of(config, Part(), done=3) == batches_of(config, Part())[6:]


@pytest.mark.parametrize("workers", [0, 2])
def test_a_view_depends_on_its_picture_and_epoch_alone(workers):
    def views(epoch, *, done=0, rank=0, processes=1):
        config = TrainConfig(batch_size=4, seed=3, workers=workers)
        batching = Batching(Noise(), config, Part(rank, processes))
        return {
            int(label): image.tolist()
            for images, labels in batching.epoch(epoch, done=done)
            for image, label in zip(images, labels, strict=True)
        }

    whole = views(1)
    assert len(whole) == 20
    late, other, second = views(1, done=3), views(1, rank=1, processes=2), views(2)
    assert len(late) == 8
    assert len(other) == 10
    for part in (late, other):
        assert all(whole[label] == image for label, image in part.items())
    assert all(whole[label][1:] != image[1:] for label, image in second.items())


def test_another_seed_gives_another_view():
    first, again, other = (Views(Noise(), seed)[1, 5, 0][0] for seed in (0, 0, 1))
    assert torch.equal(first, again)
    assert (first[1:] != other[1:]).all()


class Endless(torch.utils.data.IterableDataset):
    def __init__(self, seed):
        self.seed = seed

    def __iter__(self):
        draw = torch.Generator().manual_seed(self.seed)
        while True:
            yield torch.rand(2, generator=draw), 0


def test_a_stream_is_opened_anew_every_epoch_and_what_was_used_is_passed_over():
    batching = Batching(Stream(20, Endless), TrainConfig(batch_size=8, grad_accum_steps=2))
    first, again, second = ([image for image, _ in batching.epoch(epoch)] for epoch in (1, 1, 2))
    assert len(first) == 4
    assert first[0].shape == (4, 2)
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert not torch.equal(first[0], second[0])
    late = [image for image, _ in batching.epoch(1, done=1)]
    assert all(torch.equal(a, b) for a, b in zip(first[2:], late, strict=True))


class Drawn(torch.utils.data.IterableDataset):
    """Its views are drawn as timm's transforms draw them, from torch's own generator."""

    def __init__(self, seed):
        self.seed = seed

    def __iter__(self):
        while True:
            yield torch.rand(2), 0


@pytest.mark.parametrize("workers", [0, 1])
def test_no_two_processes_have_the_same_views_of_a_stream(workers):
    parts = [
        Batching(Stream(20, Drawn), TrainConfig(batch_size=8, workers=workers), Part(rank, 2))
        for rank in (0, 1)
    ]
    first, other = ([image for image, _ in part.epoch(1)] for part in parts)
    assert len(first) == len(other) == 2
    assert not any(torch.equal(a, b) for a, b in zip(first, other, strict=True))


@pytest.mark.parametrize(
    ("fields", "processes", "message"),
    [
        (
            {"batch_size": 21},
            1,
            "batch_size=21 is more than the 20 training pictures; lower it to 20 or less",
        ),
        (
            {"batch_size": 9},
            2,
            "batch_size=9 cannot be cut into 2 equal parts, for 2 processes .* a multiple of 2",
        ),
        (
            {"batch_size": 12, "grad_accum_steps": 2},
            4,
            "cut into 8 equal parts, for 4 processes with grad_accum_steps=2; .* of 8",
        ),
        (
            {"batch_size": 6, "mixup": 1.0},
            2,
            r"2 equal parts \(even, for mixup and cutmix\).* multiple of 4",
        ),
    ],
)
def test_what_cannot_be_shared_is_refused(fields, processes, message):
    with pytest.raises(ValueError, match=message):
        Batching(Noise(), TrainConfig(**fields), Part(0, processes))


def test_the_parts_of_all_processes_count_every_picture_once():
    parts = [Part(rank, 3).of(Noise()) for rank in range(3)]
    assert sorted(
        label for part in parts for _, label in (part[i] for i in range(len(part)))
    ) == list(range(20))
    # of two pictures three processes cannot have one each; so each has all
    few = TensorDataset(torch.zeros(2, 1))
    assert all(len(Part(rank, 3).of(few)) == 2 for rank in range(3))
