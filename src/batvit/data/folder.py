"""Pictures on disk, checked before use: timm's folders, transforms and loader, strict about what cannot be read."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image
from timm.data.readers.reader_image_folder import find_images_and_targets
from timm.utils.misc import natural_key
from torch.utils.data import Dataset

from batvit.data.pictures import UnreadableError, open_picture, opened
from batvit.storage.files import check_there


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
        try:
            image = open_picture(path)
        except UnreadableError as error:
            raise UnreadableError(
                f"{error}; remove it, or skip such files (--skip-unreadable)"
            ) from error
        return (image if self.transform is None else self.transform(image)), label


def read_class_map(path: Path) -> tuple[str, ...]:
    """Folder names in label order, one a line: what timm calls a class map.

    Raises:
        FileNotFoundError, ValueError: if the file is missing, is no text, is empty, or names a class twice.
    """
    if path.suffix != ".txt":
        raise ValueError(f"{path}: a class map is a .txt file with one folder name a line")
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except FileNotFoundError:
        raise FileNotFoundError(f"{path}: no such file") from None
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: not a text file ({error})") from error
    names = tuple(line.strip() for line in lines if line.strip())
    if not names:
        raise ValueError(f"{path}: is empty; a class map has one folder name a line")
    seen: set[str] = set()
    for name in names:
        if name in seen:
            raise ValueError(f"{path}: names {name!r} twice; each line is another class")
        seen.add(name)
    return names


def image_folder(
    root: str | Path,
    *,
    class_map: str | Path | None = None,
    num_classes: int | None = None,
    skip_unreadable: bool = False,
) -> Pictures:
    """List the .jpg, .jpeg and .png files of a folder that has one sub-folder a class, and check that every one opens.

    Args:
        root: the folder.
        class_map: a text file with all folder names in label order; by default the folders in natural order, 2 before 10.
        num_classes: how many classes the model knows; labels must fit.
        skip_unreadable: leave out files that are no pictures, instead of refusing the folder. Every file is decoded once
            for that, so that what is cut short is found too; otherwise only its header is read.

    Raises:
        FileNotFoundError, ValueError, UnreadableError: naming what is wrong and what to do.
    """
    root = Path(root)
    paths, names = _find(root)
    _check_layout(root, paths)
    classes = tuple(names) if class_map is None else read_class_map(Path(class_map))
    _check_classes(root, names, classes, num_classes, class_map)
    label = {name: i for i, name in enumerate(classes)}
    kept, bad = _readable(root, paths, skip_unreadable=skip_unreadable)
    return Pictures([(path, label[path.parent.name]) for path in kept], classes, bad)


def unlabelled(root: str | Path, *, skip_unreadable: bool = False) -> Pictures:
    """:func:`image_folder` where no labels are wanted: pictures may lie in any sub-folder or in none, and all have label 0."""
    kept, bad = _readable(Path(root), _find(Path(root))[0], skip_unreadable=skip_unreadable)
    return Pictures([(path, 0) for path in kept], (), bad)


def _find(root: Path) -> tuple[list[Path], list[str]]:
    """All pictures below a folder, and the names of the folders they lie in, each in natural order."""
    check_there(root)
    found = [Path(path) for path, _ in find_images_and_targets(str(root), sort=False)[0]]
    # what other programs keep there, such as .ipynb_checkpoints, is no class
    paths = [
        path
        for path in found
        if not any(part.startswith(".") for part in path.relative_to(root).parts)
    ]
    if not paths:
        raise ValueError(
            f"{root}: holds no pictures; expected one folder a class with .jpg, .jpeg or .png files in it"
        )
    return sorted(paths, key=lambda path: _order(str(path))), sorted(
        {path.parent.name for path in paths}, key=_order
    )


def _order(name: str) -> tuple[Any, str]:
    # timm's natural order does not tell "a" from "A" nor 1 from 01
    return natural_key(name), name


def _check_layout(root: Path, paths: Sequence[Path]) -> None:
    beside = next((path for path in paths if path.parent == root), None)
    if beside is not None:
        raise ValueError(
            f"{root}: {beside.name} lies beside the class folders; put each picture into the folder of its class"
        )
    deep = next((path for path in paths if path.parent.parent != root), None)
    if deep is not None:
        raise ValueError(
            f"{root}: {deep} lies deeper than one folder a class; give the folder of the class folders, "
            f"such as {deep.parent.parent}"
        )


def _check_classes(
    root: Path,
    names: Sequence[str],
    classes: tuple[str, ...],
    num_classes: int | None,
    class_map: str | Path | None,
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


def _readable(
    root: Path, paths: Sequence[Path], *, skip_unreadable: bool
) -> tuple[list[Path], tuple[Path, ...]]:
    """The files that are pictures, and those that are not; refused if they are not to be skipped, or there are no others."""
    bad = tuple(path for path in paths if not _is_picture(path, decode=skip_unreadable))
    if bad and not skip_unreadable:
        raise UnreadableError(
            f"{root}: {len(bad)} of {len(paths)} files cannot be read as pictures, the first is {bad[0]}; "
            "remove them, or skip them (--skip-unreadable)"
        )
    if len(bad) == len(paths):
        raise ValueError(
            f"{root}: none of the {len(paths)} files can be read as a picture, the first is {bad[0]}"
        )
    lost = set(bad)
    return [path for path in paths if path not in lost], bad


def _is_picture(path: Path, *, decode: bool) -> bool:
    try:
        with opened(path, str(path)) as image:
            if decode:
                image.convert("RGB")
    except UnreadableError:
        return False
    return True
