"""From opened pictures to what a training loop takes: random views for training, batches for validation."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import chain
from typing import Any

from PIL import Image
from timm.data import auto_augment, create_transform
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from batvit.data.loading import data_config
from batvit.data.sources import Sources
from batvit.data.tar_shards import Shards, Stream
from batvit.training.batches import ALONE, Part, ignore_sigterm
from batvit.training.config import TrainConfig
from batvit.training.processes import counted_by


def prepare(
    sources: Sources, model: nn.Module, config: TrainConfig, part: Part
) -> tuple[Dataset[Any] | Stream, Iterable[tuple[Tensor, Tensor]]]:
    """Random views for training, and this process's part of the validation pictures in batches, as the model expects."""
    sources.train.transform = augmentation(model, config)
    sources.val.transform = create_transform(**data_config(model))
    batch = -(-config.batch_size // (part.processes * config.grad_accum_steps))
    if isinstance(sources.train, Shards) and isinstance(sources.val, Shards):
        # a process without a picture could not count
        mine = counted_by(part) if sources.val.size >= part.processes else ALONE
        return sources.train.stream(batch), Parted(
            _loader(sources.val.whole(), batch, config.workers), mine
        )
    assert not isinstance(sources.train, Shards)
    assert not isinstance(sources.val, Shards)
    return sources.train, _loader(counted_by(part).of(sources.val), batch, config.workers)


@dataclass(frozen=True)
class Parted:
    """One process's pictures, every so-manieth, in batches that all processes read."""

    batches: Iterable[tuple[Tensor, Tensor]]
    part: Part

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        seen = 0
        for images, labels in self.batches:
            first = (self.part.rank - seen) % self.part.processes
            seen += len(labels)
            if first < len(labels):
                yield images[first :: self.part.processes], labels[first :: self.part.processes]


def _loader(pictures: Dataset[Any], batch: int, workers: int) -> DataLoader[tuple[Tensor, Tensor]]:
    return DataLoader(pictures, batch, num_workers=workers, worker_init_fn=ignore_sigterm)


def augmentation(model: nn.Module, config: TrainConfig) -> Callable[[Image.Image], Tensor]:
    """Random views for training: PIL image to (3, H, W).

    Crop, flip and colours, and what the configuration adds, of the size and normalisation that the model expects.
    """
    given = {
        name: data_config(model)[name] for name in ("input_size", "interpolation", "mean", "std")
    }
    views: Any = create_transform(
        **given,
        is_training=True,
        auto_augment=config.auto_augment,
        color_jitter=config.color_jitter,
        re_prob=config.reprob,
        re_mode="pixel",
    )
    for policy in views.transforms:
        for operation in (*getattr(policy, "ops", ()), *chain(*getattr(policy, "policy", ()))):
            if operation.aug_fn is auto_augment.posterize:
                operation.aug_fn = _posterize
    found: Callable[[Image.Image], Tensor] = views
    return found


def _posterize(image: Image.Image, bits: int, **options: Any) -> Image.Image:
    """As timm's; where its policies keep no bits, which Pillow refuses from 13 on, the picture is black."""
    return auto_augment.posterize(image, bits) if bits > 0 else Image.new(image.mode, image.size)
