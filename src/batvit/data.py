"""Pictures on disk, checked before use: timm's folders, transforms and loader, strict about what cannot be read."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from PIL import Image, UnidentifiedImageError
from timm.data import create_loader, resolve_data_config
from timm.data.readers.reader_image_folder import find_images_and_targets
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset


class UnreadableError(ValueError):
    """A picture cannot be read. The message names it."""


@dataclass
class Pictures(Dataset[tuple[Any, int]]):
    """Labelled pictures of an image folder."""

    samples: list[tuple[Path, int]]
    """file and label"""
    classes: tuple[str, ...]
    """folder names in label order"""
    skipped: tuple[Path, ...] = ()
    """files that could not be read and were left out on request"""
    transform: Callable[[Image.Image], Any] | None = None

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> tuple[Any, int]:
        path, label = self.samples[index]
        image = open_picture(path)
        return (image if self.transform is None else self.transform(image)), label


def open_picture(path: Path) -> Image.Image:
    """Decode one picture as RGB.

    Raises:
        UnreadableError: naming the file, if it is no picture, is cut short, or is larger than Pillow's safety limit.
    """
    try:
        with Image.open(path) as image:
            _refuse_huge(image)
            return image.convert("RGB")
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise UnreadableError(f"{path}: cannot be read as a picture ({error})") from error


def read_class_map(path: Path) -> tuple[str, ...]:
    """Folder names in label order, one a line: what timm calls a class map.

    Raises:
        ValueError: if the file is no text, is empty, or names a class twice.
    """
    if path.suffix != ".txt":
        raise ValueError(f"{path}: a class map is a .txt file with one folder name a line")
    try:
        names = tuple(line.strip() for line in path.read_text(encoding="utf-8").splitlines() if line.strip())
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: not a text file ({error})") from error
    twice = next((name for i, name in enumerate(names) if name in names[:i]), None)
    if not names or twice is not None:
        raise ValueError(f"{path}: names {twice!r} twice" if twice else f"{path}: is empty")
    return names


def image_folder(
    root: str | Path, *, class_map: str | Path | None = None, num_classes: int | None = None, skip_unreadable: bool = False
) -> Pictures:
    """List the pictures of a folder that has one sub-folder a class, and check that every one opens.

    Args:
        root: the folder.
        class_map: a text file with all folder names in label order; sorted folder names by default.
        num_classes: how many classes the model knows; labels must fit.
        skip_unreadable: leave out files that are no pictures, instead of refusing the folder.

    Raises:
        FileNotFoundError, ValueError, UnreadableError: naming what is wrong and what to do.
    """
    root = Path(root)
    if not root.is_dir():
        raise FileNotFoundError(f"{root}: no such folder")
    found, folders = find_images_and_targets(str(root))
    if not found:
        raise ValueError(f"{root}: holds no pictures; expected one folder a class with .jpg, .jpeg or .png files in it")
    if "" in folders:
        raise ValueError(f"{root}: pictures lie beside the folders; put each into the folder of its class")
    names = sorted(folders, key=folders.__getitem__)
    classes = tuple(names) if class_map is None else read_class_map(Path(class_map))
    _check_classes(root, names, classes, num_classes, class_map)
    label = {name: i for i, name in enumerate(classes)}
    samples = [(Path(path), label[names[target]]) for path, target in found]
    bad = [path for path, _ in samples if not _opens(path)]
    if bad and not skip_unreadable:
        raise UnreadableError(
            f"{root}: {len(bad)} of {len(samples)} files cannot be read as pictures, the first is {bad[0]}; "
            "remove them, or skip them (--skip-unreadable)"
        )
    if len(bad) == len(samples):
        raise ValueError(f"{root}: none of the {len(samples)} files can be read as a picture")
    lost = set(bad)
    return Pictures([s for s in samples if s[0] not in lost], classes, tuple(bad))


def loader(
    pictures: Pictures, model: nn.Module, *, batch_size: int, image_size: tuple[int, int] | None = None, workers: int = 0
) -> DataLoader[tuple[Tensor, Tensor]]:
    """Batches for evaluation, prepared as the model's pretrained configuration says (timm's transforms).

    Args:
        pictures: from :func:`image_folder`; its ``transform`` is set.
        model: read for ``pretrained_cfg``: size, crop, interpolation, mean and deviation.
        batch_size: pictures a batch; the last batch may be smaller.
        image_size: (height, width), if not the model's own.
        workers: processes that decode; 0 decodes in this one.
    """
    settings = data_config(model, image_size)
    batches: DataLoader[tuple[Tensor, Tensor]] = create_loader(
        pictures,  # type: ignore[arg-type]
        batch_size=batch_size,
        is_training=False,
        use_prefetcher=False,
        num_workers=workers,
        persistent_workers=workers > 0,
        input_size=settings["input_size"],
        interpolation=settings["interpolation"],
        mean=settings["mean"],
        std=settings["std"],
        crop_pct=settings["crop_pct"],
        crop_mode=settings["crop_mode"],
    )
    return batches


def data_config(model: nn.Module, image_size: tuple[int, int] | None = None) -> dict[str, Any]:
    """What timm knows of a model's input: input_size (3, H, W), interpolation, mean, std, crop_pct, crop_mode."""
    size = {"input_size": (3, *image_size)} if image_size else {}
    settings: dict[str, Any] = resolve_data_config(size, model=model)
    return settings


def placed(batch: Tensor, model: nn.Module) -> Tensor:
    """A batch of pictures on the device and in the type of a model's weights."""
    weight = next(model.parameters())
    return batch.to(device=weight.device, dtype=weight.dtype if weight.is_floating_point() else torch.float32)


def _check_classes(
    root: Path, names: Sequence[str], classes: tuple[str, ...], num_classes: int | None, class_map: str | Path | None
) -> None:
    strange = [name for name in names if name not in classes]
    if strange:
        raise ValueError(
            f"{class_map}: does not fit {root}: {len(strange)} of its {len(names)} folders are not named in the class map, "
            f"the first is {strange[0]!r}"
        )
    if num_classes is not None and len(classes) != num_classes:
        where, remedy = (
            (f"{root}: has {len(classes)} folders", "give --class-map FILE")
            if class_map is None
            else (f"{class_map}: names {len(classes)} classes", "give the class map of this model")
        )
        raise ValueError(f"{where}, the model has {num_classes} classes; {remedy}")


def _opens(path: Path) -> bool:
    try:
        with Image.open(path) as image:
            _refuse_huge(image)
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError, Image.DecompressionBombError):
        return False
    return True


def _refuse_huge(image: Image.Image) -> None:
    limit = Image.MAX_IMAGE_PIXELS
    if limit is not None and image.width * image.height > limit:
        raise ValueError(f"{image.width} x {image.height} pixels are more than {limit}")
