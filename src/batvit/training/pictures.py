"""From --data to what a training loop takes: image folders, Hugging Face datasets, tar shards."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

from PIL import Image
from timm.data import auto_augment, create_transform
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from batvit.data import Pictures, data_config, image_folder
from batvit.training.batches import ALONE, Part, Stream, deaf
from batvit.training.config import TrainConfig
from batvit.training.processes import counted_by
from batvit.training.readers import Shards, Table

KINDS = ("hfds", "wds")


@dataclass(frozen=True)
class Found:
    """Training and validation pictures of the same classes, not yet prepared for a model."""

    train: Pictures | Table | Shards
    val: Pictures | Table | Shards
    classes: tuple[str, ...] | None
    """names in label order; None where they are not told"""

    def prepare(
        self, model: nn.Module, config: TrainConfig, part: Part
    ) -> tuple[Dataset[Any] | Stream, Iterable[tuple[Tensor, Tensor]]]:
        """Random views for training, and this process's part of the validation pictures in batches, as the model expects."""
        self.train.transform = augmentation(model, config)
        self.val.transform = create_transform(**data_config(model))
        batch = -(-config.batch_size // (part.processes * config.grad_accum_steps))
        if isinstance(self.train, Shards) and isinstance(self.val, Shards):
            # a process without a picture could not count
            mine = counted_by(part) if self.val.size >= part.processes else ALONE
            return self.train.stream(batch), Parted(_loader(self.val.whole(), batch, config.workers), mine)
        assert not isinstance(self.train, Shards)
        assert not isinstance(self.val, Shards)
        return self.train, _loader(counted_by(part).of(self.val), batch, config.workers)


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
    return DataLoader(pictures, batch, num_workers=workers, worker_init_fn=deaf)


def augmentation(model: nn.Module, config: TrainConfig) -> Callable[[Image.Image], Tensor]:
    """Random views for training: PIL image to (3, H, W).

    Crop, flip and colours, and what the configuration adds, of the size and normalisation that the model expects.
    """
    given = {name: data_config(model)[name] for name in ("input_size", "interpolation", "mean", "std")}
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


def find(
    data: str, *, splits: tuple[str, str] | None = None, class_map: str | None = None, skip_unreadable: bool = False
) -> Found:
    """Open the pictures and check them.

    Args:
        data: a folder that holds ``train/`` and ``val/`` with one sub-folder a class, ``hfds/NAME``, or ``wds/DIR``.
        splits: names of the training and the validation split, where they are not ``train`` and ``val`` (of a folder, or
            shards) or ``validation`` (of a Hugging Face dataset).
        class_map, skip_unreadable: of folders; see :func:`batvit.data.image_folder`.

    Raises:
        ValueError, OSError: naming what is wrong and what to do.
    """
    kind, _, name = data.partition("/")
    if kind in KINDS and name:
        if class_map is not None or skip_unreadable:
            raise ValueError(f"{data}: a class map and skipping what is unreadable are for image folders; leave them out")
        if kind == "wds":
            shards = [Shards(Path(name), split) for split in splits or ("train", "val")]
            return Found(shards[0], shards[1], None)
        tables = [Table(name, split) for split in splits or ("train", "validation")]
        return Found(tables[0], tables[1], tables[0].classes)
    roots = [Path(data) / split for split in splits or ("train", "val")]
    train, val = (image_folder(root, class_map=class_map, skip_unreadable=skip_unreadable) for root in roots)
    _check_folders(
        {root: {found.classes[label] for _, label in found.samples} for root, found in zip(roots, (train, val), strict=True)}
    )
    if len(train.classes) < 2:
        raise ValueError(f"{data}: all pictures are of one class ({train.classes[0]}); give two classes or more")
    return Found(train, val, train.classes)


def _check_folders(used: dict[Path, set[str]]) -> None:
    """Every class has pictures, for training and for validation."""
    there = {folder.name for root in used for folder in root.iterdir() if folder.is_dir() and not folder.name.startswith(".")}
    for root, names in used.items():
        missing = min(there - names, default=None)
        if missing is not None:
            others = " and ".join(str(other) for other in used)
            raise ValueError(f"{root / missing}: holds no pictures; put some there, or remove the class from {others}")
