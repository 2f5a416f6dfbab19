"""Which pictures go into which update: a function of seed and epoch alone.

However many processes share the work, an update has the same pictures, seen in the same way.
"""

import random
import signal
from collections.abc import Iterator, Sized
from dataclasses import dataclass
from itertools import count, islice
from typing import Any, TypeVar, cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, Sampler, Subset, get_worker_info

from batvit.data.loading import data_config
from batvit.data.pictures import UnreadableError
from batvit.data.tar_shards import Stream
from batvit.training.config import TrainConfig

Batches = Iterator[tuple[Tensor, Tensor]]
"""pictures (B, 3, H, W) and labels (B,)"""
Key = tuple[int, int, int]
"""epoch, picture, and which of its views in this epoch"""
Item = TypeVar("Item")


@dataclass(frozen=True)
class Part:
    """Which process this is, of how many."""

    rank: int = 0
    processes: int = 1

    def of(self, dataset: Dataset[Any]) -> Dataset[Any]:
        """Return this process's share of the pictures to evaluate on: every n-th, of n processes.

        The shares of all processes make up the whole, each picture once. Of fewer pictures than
        processes each has all, as one without a picture could not count.
        """
        size = len(cast(Sized, dataset))
        if size < self.processes:
            return dataset
        return Subset(dataset, range(self.rank, size, self.processes))


ALONE = Part()


class Batching:
    """The training pictures, split into updates, processes, and the parts a process accumulates.

    One process that accumulates two parts and two processes that take one each see the same
    pictures in the same update, and mixing pairs the same ones.

    Args:
        train: gives a picture (3, H, W) and its label; or a stream.
        config: how.
        part: which process this is.

    Raises:
        ValueError: if the set is empty, the batch is larger than it, or cannot be shared evenly.
    """

    def __init__(
        self, train: Dataset[Any] | Stream, config: TrainConfig, part: Part = ALONE
    ) -> None:
        self.train = train
        self.config = config
        self.part = part
        self.size = len(cast(Sized, train))
        """pictures"""
        self.parts = part.processes * config.grad_accum_steps
        """parts of an update, over all processes"""
        self._check()
        self.updates = self.size // config.batch_size
        """updates an epoch"""

    def _check(self) -> None:
        batch = self.config.batch_size
        if not self.size:
            raise ValueError("the training set is empty; give at least one batch of pictures")
        if batch > self.size:
            raise ValueError(
                f"batch_size={batch} is more than the {self.size} training pictures; "
                f"lower it to {self.size} or less"
            )
        # mixing needs pairs
        least = 2 if self.config.mixes else 1
        if batch % (self.parts * least):
            even = " (even, for mixup and cutmix)" if self.config.mixes else ""
            raise ValueError(
                f"batch_size={batch} cannot be cut into {self.parts} equal parts{even}, for "
                f"{self.part.processes} processes with "
                f"grad_accum_steps={self.config.grad_accum_steps}; "
                f"give a multiple of {self.parts * least}"
            )

    def sample(self, model: nn.Module) -> Tensor:
        """Return one picture (3, H, W), for asking a model something; of a stream a black one."""
        if isinstance(self.train, Stream):
            return torch.zeros(data_config(model)["input_size"])
        picture: Tensor = self.train[0][0]
        return picture

    def epoch(self, number: int, *, done: int = 0) -> Batches:
        """Return the batches of this process, ``grad_accum_steps`` an update.

        Args:
            number: of the epoch, counted from 1.
            done: updates of it that are passed over.
        """
        if isinstance(self.train, Stream):
            return _readable(self._from_stream(self.train, number, done))
        loader = DataLoader(
            Views(self.train, self.config.seed),
            batch_sampler=BatchSampler(self, number, done),
            num_workers=self.config.workers,
            pin_memory=_can_pin(),
            worker_init_fn=ignore_sigterm,
        )
        return _readable(iter(loader))

    def _from_stream(self, stream: Stream, number: int, done: int) -> Batches:
        """Read a stream from its beginning: what was used before must be read again."""
        steps = self.config.grad_accum_steps
        key = (self.config.seed, number)
        # another for each process, or all would have the same views
        generator = torch.Generator().manual_seed(seed_of(*key, self.part.rank))
        loader: Any = DataLoader(
            stream.open(seed_of(*key) % 2**31),
            self.config.batch_size // self.parts,
            drop_last=True,
            num_workers=self.config.workers,
            generator=generator,
            pin_memory=_can_pin(),
            worker_init_fn=ignore_sigterm,
        )
        batches = _seeded(islice(loader, self.updates * steps), *key, self.part.rank)
        return islice(batches, done * steps, None)


class BatchSampler(Sampler[list[Key]]):
    """The keys of what one process gets in one epoch, a list for each batch.

    Args:
        batching: of the process.
        epoch: counted from 1.
        done: updates of it that are passed over.
    """

    def __init__(self, batching: Batching, epoch: int, done: int) -> None:
        self.batching = batching
        self.epoch = epoch
        self.done = done

    def __iter__(self) -> Iterator[list[Key]]:
        keys = self._keys()
        batch = self.batching.config.batch_size
        steps = self.batching.config.grad_accum_steps
        for update in range(self.done, self.batching.updates):
            whole = keys[update * batch : (update + 1) * batch]
            for step in range(steps):
                part = self.batching.part.rank * steps + step
                yield split_batch(whole, part, self.batching.parts)

    def __len__(self) -> int:
        return (self.batching.updates - self.done) * self.batching.config.grad_accum_steps

    def _keys(self) -> list[Key]:
        """Return the keys of a whole epoch, over all processes, in the order of their updates."""
        size = self.batching.size
        repeats = max(self.batching.config.aug_repeats, 1)
        draw = np.random.default_rng((self.batching.config.seed, self.epoch))
        # with repeats only a share of the pictures comes in
        pictures = draw.permutation(size).repeat(repeats)[:size].tolist()
        views = np.tile(np.arange(repeats), size)[:size].tolist()
        return [(self.epoch, picture, view) for picture, view in zip(pictures, views, strict=True)]


def split_batch(whole: list[Item], part: int, parts: int) -> list[Item]:
    """Return one of the equal parts of a batch.

    A picture and its mirror, the i-th from either end, stay together: timm's mixup and cutmix blend
    each picture of what they are given with its mirror.
    """
    size = len(whole) // parts
    # of an odd part the middle picture has no mirror, and none are mixed
    if size % 2:
        return whole[part * size : (part + 1) * size]
    half = size // 2
    end = len(whole)
    front = whole[part * half : (part + 1) * half]
    back = whole[end - (part + 1) * half : end - part * half]
    return front + back


class Views(Dataset[tuple[Tensor, int]]):
    """Pictures whose random views depend on seed, epoch and picture alone.

    It does not matter which process prepares them, or after what.
    """

    def __init__(self, pictures: Dataset[Any], seed: int) -> None:
        self.pictures = pictures
        self.seed = seed

    def __getitem__(self, key: Key) -> tuple[Tensor, int]:
        seed_all(self.seed, *key)
        _, index, _ = key
        picture, label = self.pictures[index]
        return picture, int(label)


def seed_all(*numbers: int) -> None:
    """Seed Python, NumPy and torch, on the CPU and, in the process that trains, on the GPU."""
    seed = seed_of(*numbers)
    random.seed(seed)
    np.random.seed(seed)
    if get_worker_info() is None:
        torch.manual_seed(seed)
    else:
        torch.default_generator.manual_seed(seed)


def seed_of(*numbers: int) -> int:
    """Return one number that depends on all of them."""
    return int(np.random.SeedSequence(numbers).generate_state(1)[0])


def ignore_sigterm(worker: int) -> None:
    """Begin a worker: SIGTERM, which may be sent to all, is left to the process that trains.

    That process ends its workers when it has saved.
    """
    signal.signal(signal.SIGTERM, signal.SIG_IGN)


def _can_pin() -> bool:
    """Return whether batches lie in memory from which a GPU can read while it computes."""
    return torch.cuda.is_available()


def _seeded(batches: Batches, *key: int) -> Batches:
    """Seed before each batch: views that this process prepares depend on their place alone."""
    for place in count():
        seed_all(*key, place)
        try:
            batch = next(batches)
        except StopIteration:
            return
        yield batch


def _readable(batches: Batches) -> Batches:
    """Tell what a worker could not read without the traceback that torch puts before it."""
    try:
        yield from batches
    except UnreadableError as error:
        reason = str(error).strip().splitlines()[-1]
        kind = f"{UnreadableError.__module__}.{UnreadableError.__qualname__}: "
        raise UnreadableError(reason.removeprefix(kind)) from None
