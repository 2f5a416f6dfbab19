"""Which pictures go into which update: a function of seed and epoch alone, however many processes share the work."""

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
Key = tuple[int, int, int]
"""epoch, picture, and which of its views in this epoch"""
Each = TypeVar("Each")


@dataclass(frozen=True)
class Part:
    """Which process this is, of how many."""

    rank: int = 0
    processes: int = 1

    def of(self, dataset: Dataset[Any]) -> Dataset[Any]:
        """Every so-manieth picture, for counting: the parts of all processes make up the whole, each picture once."""
        size = len(cast(Sized, dataset))
        # a process without a picture could not count
        return (
            dataset
            if size < self.processes
            else Subset(dataset, range(self.rank, size, self.processes))
        )


ALONE = Part()


class Batching:
    """The training pictures, dealt to updates, processes, and the parts that a process accumulates.

    One process that accumulates two parts and two processes that take one each see the same pictures in the same update,
    and mixing pairs the same ones.

    Raises:
        ValueError: if the set is empty, the batch is larger than it, or cannot be shared evenly.
    """

    def __init__(
        self, train: Dataset[Any] | Stream, config: TrainConfig, part: Part = ALONE
    ) -> None:
        self.train, self.config, self.part = train, config, part
        self.size, self.parts = len(cast(Sized, train)), part.processes * config.grad_accum_steps
        batch, least = config.batch_size, 2 if config.mixes else 1
        if not self.size:
            raise ValueError("the training set is empty; give at least one batch of pictures")
        if batch > self.size:
            raise ValueError(
                f"batch_size {batch} is more than the {self.size} training pictures; lower it to {self.size} or less"
            )
        if batch % (self.parts * least):
            even = " (even, for mixup and cutmix)" if config.mixes else ""
            raise ValueError(
                f"batch_size {batch} cannot be cut into {self.parts} equal parts{even}, for {part.processes} processes with "
                f"grad_accum_steps {config.grad_accum_steps}; give a multiple of {self.parts * least}"
            )
        self.updates = self.size // batch
        """updates an epoch"""

    def sample(self, model: nn.Module) -> Tensor:
        """One picture (3, H, W), for asking a model something; of a stream an empty one."""
        if isinstance(self.train, Stream):
            return torch.zeros(data_config(model)["input_size"])
        picture: Tensor = self.train[0][0]
        return picture

    def epoch(self, number: int, *, done: int = 0) -> Batches:
        """The batches of this process, ``grad_accum_steps`` an update, from update ``done`` of the epoch on."""
        steps, workers = self.config.grad_accum_steps, self.config.workers
        # memory from which a GPU can read while it computes
        pinned = torch.cuda.is_available()
        if isinstance(self.train, Stream):
            key = (self.config.seed, number)
            stream = self.train.open(seed_of(*key) % 2**31)
            # another for each process, or all would have the same views
            own = torch.Generator().manual_seed(seed_of(*key, self.part.rank))
            loader: Any = DataLoader(
                *(stream, self.config.batch_size // self.parts),
                drop_last=True,
                num_workers=workers,
                generator=own,
                pin_memory=pinned,
                worker_init_fn=ignore_sigterm,
            )
            # what cannot be skipped is read again
            batches = _seeded(islice(loader, self.updates * steps), *key, self.part.rank)
            return _readable(islice(batches, done * steps, None))
        dealt = BatchSampler(self, number, done)
        views = Views(self.train, self.config.seed)
        loader = DataLoader(
            views,
            batch_sampler=dealt,
            num_workers=workers,
            pin_memory=pinned,
            worker_init_fn=ignore_sigterm,
        )
        return _readable(iter(loader))


class BatchSampler(Sampler[list[Key]]):
    """What one process gets in one epoch, a list of keys a batch."""

    def __init__(self, batching: Batching, epoch: int, done: int) -> None:
        self.batching, self.epoch, self.done = batching, epoch, done

    def __iter__(self) -> Iterator[list[Key]]:
        seed, size = self.batching.config.seed, self.batching.size
        repeats = max(self.batching.config.aug_repeats, 1)
        order = np.random.default_rng((seed, self.epoch)).permutation(size).repeat(repeats)[:size]
        views = np.tile(np.arange(repeats), size)[:size]
        keys = [
            (self.epoch, picture, view)
            for picture, view in zip(order.tolist(), views.tolist(), strict=True)
        ]
        batch, steps = self.batching.config.batch_size, self.batching.config.grad_accum_steps
        for update in range(self.done, self.batching.updates):
            whole = keys[update * batch : (update + 1) * batch]
            for step in range(steps):
                yield deal(whole, self.batching.part.rank * steps + step, self.batching.parts)

    def __len__(self) -> int:
        return (self.batching.updates - self.done) * self.batching.config.grad_accum_steps


def deal(whole: list[Each], part: int, parts: int) -> list[Each]:
    """One part of a batch, of equal parts; cut so that a picture and its mirror, the i-th from either end, stay together.

    timm's mixup and cutmix blend each picture of what they are given with its mirror.
    """
    size = len(whole) // parts
    if size % 2:
        return whole[part * size : (part + 1) * size]
    half, end = size // 2, len(whole)
    return (
        whole[part * half : (part + 1) * half] + whole[end - (part + 1) * half : end - part * half]
    )


class Views(Dataset[tuple[Tensor, int]]):
    """Pictures whose random views depend on seed, epoch and picture, not on who prepares them, or after what."""

    def __init__(self, pictures: Dataset[Any], seed: int) -> None:
        self.pictures, self.seed = pictures, seed

    def __getitem__(self, key: Key) -> tuple[Tensor, int]:
        seed_all(self.seed, *key)
        picture, label = self.pictures[key[1]]
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


def _seeded(batches: Batches, *key: int) -> Batches:
    """Where this process itself prepares them, their random views depend on their place alone, read anew or not."""
    for place in count():
        seed_all(*key, place)
        try:
            batch = next(batches)
        except StopIteration:
            return
        yield batch


def ignore_sigterm(worker: int) -> None:
    """Only the process that trains hears SIGTERM, which may be sent to all; it ends its workers when it has saved."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)


def seed_of(*numbers: int) -> int:
    """One number that depends on all of them."""
    return int(np.random.SeedSequence(numbers).generate_state(1)[0])


def _readable(batches: Batches) -> Batches:
    """What a loader's process could not read is told without its traceback."""
    try:
        yield from batches
    except UnreadableError as error:
        reason = str(error).strip().splitlines()[-1]
        raise UnreadableError(
            reason.removeprefix(f"{UnreadableError.__module__}.{UnreadableError.__qualname__}: ")
        ) from None
