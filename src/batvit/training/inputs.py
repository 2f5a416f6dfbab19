"""Opened pictures as a training loop takes them: random views, and batches to validate on."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import chain
from typing import Any

from PIL import Image
from timm.data import auto_augment, create_transform
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from batvit.data.digits import Digits
from batvit.data.loading import data_config
from batvit.data.sources import Sources
from batvit.data.tar_shards import Shards, Stream
from batvit.training.batches import ALONE, Part, ignore_sigterm
from batvit.training.config import TrainConfig
from batvit.training.processes import validation_part

Inputs = tuple[Dataset[Any] | Stream, Iterable[tuple[Tensor, Tensor]]]
"""pictures to train on, and batches of this process to validate on"""


def prepare(sources: Sources, model: nn.Module, config: TrainConfig, part: Part) -> Inputs:
    """Return random views to train on, and this process's part of the validation pictures.

    Both are as the model expects them, the latter in batches. Digits have no random views: a
    mirrored digit is another sign.

    Args:
        sources: their transforms are set.
        model: asked what it expects.
        config: how to train.
        part: which process this is.
    """
    train = sources.train
    val = sources.val
    if isinstance(train, Digits) and isinstance(val, Digits):
        own_part = validation_part(part).of(_sized(val, model))
        return _sized(train, model), DataLoader(own_part, config.batch_size)
    assert not isinstance(train, Digits)
    assert not isinstance(val, Digits)
    train.transform = augmentation(model, config)
    val.transform = create_transform(**data_config(model))
    parts = part.processes * config.grad_accum_steps
    # rounded up; what cannot be shared evenly is refused by the loop
    batch = -(-config.batch_size // parts)
    if isinstance(train, Shards) and isinstance(val, Shards):
        # a process without a picture could not count
        counted = validation_part(part) if val.size >= part.processes else ALONE
        whole = _loader(val.whole(), batch, config.workers)
        return train.stream(batch), PartOfBatches(whole, counted)
    assert not isinstance(train, Shards)
    assert not isinstance(val, Shards)
    return train, _loader(validation_part(part).of(val), batch, config.workers)


@dataclass(frozen=True)
class PartOfBatches:
    """One process's pictures, every n-th of n processes, out of batches that all of them read."""

    batches: Iterable[tuple[Tensor, Tensor]]
    part: Part

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        step = self.part.processes
        seen = 0
        for images, labels in self.batches:
            first = (self.part.rank - seen) % step
            seen += len(labels)
            if first < len(labels):
                yield images[first::step], labels[first::step]


def augmentation(model: nn.Module, config: TrainConfig) -> Callable[[Image.Image], Tensor]:
    """Return what makes random views for training: PIL image to (3, H, W).

    Crop, flip and colours, and what the configuration adds, of the size and normalisation that the
    model expects.
    """
    expected = data_config(model)
    views: Any = create_transform(
        input_size=expected["input_size"],
        interpolation=expected["interpolation"],
        mean=expected["mean"],
        std=expected["std"],
        is_training=True,
        auto_augment=config.auto_augment,
        color_jitter=config.color_jitter,
        re_prob=config.reprob,
        re_mode="pixel",
    )
    for transform in views.transforms:
        _repair_posterize(transform)
    view: Callable[[Image.Image], Tensor] = views
    return view


def _repair_posterize(policy: Any) -> None:
    """Replace timm's posterize in the operations of a policy of its, if this is one."""
    operations = (*getattr(policy, "ops", ()), *chain(*getattr(policy, "policy", ())))
    for operation in operations:
        if operation.aug_fn is auto_augment.posterize:
            operation.aug_fn = _posterize


def _posterize(image: Image.Image, bits: int, **options: Any) -> Image.Image:
    """Keep so many bits of each colour; where timm's policies keep none, the picture is black.

    Pillow refuses to keep none from its version 13 on.
    """
    if bits <= 0:
        return Image.new(image.mode, image.size)
    reduced: Image.Image = auto_augment.posterize(image, bits)
    return reduced


def _sized(scans: Digits, model: nn.Module) -> Digits:
    """Return digits of the size and normalisation that a model expects."""
    expected = data_config(model)
    return replace(
        scans,
        image_size=expected["input_size"][1:],
        mean=expected["mean"],
        std=expected["std"],
    )


def _loader(pictures: Dataset[Any], batch: int, workers: int) -> DataLoader[tuple[Tensor, Tensor]]:
    return DataLoader(pictures, batch, num_workers=workers, worker_init_fn=ignore_sigterm)
