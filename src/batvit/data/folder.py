"""An image folder, checked before use: its pictures, their order and their labels."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from timm.data.readers.reader_image_folder import find_images_and_targets
from timm.utils.misc import natural_key
from torch.utils.data import Dataset

from batvit.data.pictures import Transform, UnreadableError, open_picture, opened
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
    transform: Transform | None = None
    """what prepares a picture; it is given as it is without one"""

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> tuple[Any, int]:
        path, label = self.samples[index]
        try:
            image = open_picture(path)
        except UnreadableError as error:
            raise UnreadableError(
                f"{error}; remove it, or skip such files (skip_unreadable=True)"
            ) from error
        if self.transform is None:
            return image, label
        return self.transform(image), label


def read_class_map(path: Path) -> tuple[str, ...]:
    """Read folder names in label order, one a line: what timm calls a class map.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it is no .txt file, is no text, is empty, or names a class twice.
    """
    if path.suffix != ".txt":
        raise ValueError(f"{path}: a class map is a .txt file with one folder name a line")
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except FileNotFoundError:
        raise FileNotFoundError(f"{path}: no such file") from None
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: not a text file ({error})") from error
    names: dict[str, None] = {}
    for line in lines:
        name = line.strip()
        if name in names:
            raise ValueError(f"{path}: names {name!r} twice; each line is another class")
        if name:
            names[name] = None
    if not names:
        raise ValueError(f"{path}: is empty; a class map has one folder name a line")
    return tuple(names)


def image_folder(
    root: str | Path,
    *,
    class_map: str | Path | None = None,
    num_classes: int | None = None,
    skip_unreadable: bool = False,
) -> Pictures:
    """List the pictures of a folder that has one sub-folder a class, and check that each opens.

    Pictures are its .jpg, .jpeg and .png files.

    Args:
        root: the folder.
        class_map: a text file with all folder names in label order; by default the folders in
            natural order, 2 before 10.
        num_classes: how many classes the model knows; labels must fit.
        skip_unreadable: leave out files that are no pictures, instead of refusing the folder. For
            that every file is decoded once, so that what is cut short is found too; otherwise only
            its header is read.

    Raises:
        FileNotFoundError, ValueError, UnreadableError: naming what is wrong and what to do.
    """
    root = Path(root)
    paths, names = _find(root)
    _check_layout(root, paths)
    classes = tuple(names) if class_map is None else read_class_map(Path(class_map))
    _check_classes(root, names, classes, num_classes, class_map)
    kept, skipped = _readable(root, paths, skip_unreadable=skip_unreadable)
    labels = {name: i for i, name in enumerate(classes)}
    samples = [(path, labels[path.parent.name]) for path in kept]
    return Pictures(samples, classes, skipped)


def unlabelled(root: str | Path, *, skip_unreadable: bool = False) -> Pictures:
    """List the pictures of a folder where no labels are wanted: all have label 0.

    They may lie in any sub-folder, or in none. Otherwise as :func:`image_folder`.
    """
    root = Path(root)
    paths, _ = _find(root)
    kept, skipped = _readable(root, paths, skip_unreadable=skip_unreadable)
    return Pictures([(path, 0) for path in kept], (), skipped)


def _find(root: Path) -> tuple[list[Path], list[str]]:
    """Return all pictures below a folder, and the names of their folders, both in natural order."""
    check_there(root)
    files, _ = find_images_and_targets(str(root), sort=False)
    paths = []
    for file, _ in files:
        path = Path(file)
        parts = path.relative_to(root).parts
        # what other programs hide there, such as .ipynb_checkpoints, is no class
        if not any(part.startswith(".") for part in parts):
            paths.append(path)
    if not paths:
        raise ValueError(
            f"{root}: holds no pictures; "
            "expected one folder a class with .jpg, .jpeg or .png files in it"
        )
    paths.sort(key=lambda path: _order(str(path)))
    names = {path.parent.name for path in paths}
    return paths, sorted(names, key=_order)


def _order(name: str) -> tuple[Any, str]:
    # timm's natural order does not tell "a" from "A" nor 1 from 01
    return natural_key(name), name


def _check_layout(root: Path, paths: Sequence[Path]) -> None:
    """Refuse pictures that do not lie in a sub-folder of the root itself."""
    for path in paths:
        if path.parent == root:
            raise ValueError(
                f"{root}: {path.name} lies beside the class folders; "
                "put each picture into the folder of its class"
            )
    for path in paths:
        if path.parent.parent != root:
            raise ValueError(
                f"{root}: {path} lies deeper than one folder a class; "
                f"give the folder of the class folders, such as {path.parent.parent}"
            )


def _check_classes(
    root: Path,
    names: Sequence[str],
    classes: tuple[str, ...],
    num_classes: int | None,
    class_map: str | Path | None,
) -> None:
    """Refuse folders that the class map does not name, and classes that are not the model's.

    Args:
        root: the folder, for the message.
        names: of its sub-folders.
        classes: names in label order.
        num_classes: of the model, if it is to be compared.
        class_map: the file that ``classes`` are from, if they are not the sub-folders.
    """
    strange = [name for name in names if name not in classes]
    if strange:
        raise ValueError(
            f"{class_map}: does not fit {root}: {len(strange)} of its {len(names)} folders are not "
            f"named in the class map, the first is {strange[0]!r}"
        )
    if num_classes is None or len(classes) == num_classes:
        return
    if class_map is None:
        problem = f"{root}: has {len(classes)} folders"
        remedy = "give class_map=FILE"
    else:
        problem = f"{class_map}: names {len(classes)} classes"
        remedy = "give the class map of this model"
    raise ValueError(f"{problem}, the model has {num_classes} classes; {remedy}")


def _readable(
    root: Path, paths: Sequence[Path], *, skip_unreadable: bool
) -> tuple[list[Path], tuple[Path, ...]]:
    """Return the files that are pictures, and those that are not.

    Raises:
        UnreadableError: if there are some that are not, and they are not to be skipped.
        ValueError: if there are no others.
    """
    readable = []
    unreadable = []
    for path in paths:
        if _is_picture(path, decode=skip_unreadable):
            readable.append(path)
        else:
            unreadable.append(path)
    if unreadable and not skip_unreadable:
        raise UnreadableError(
            f"{root}: {len(unreadable)} of {len(paths)} files cannot be read as pictures, "
            f"the first is {unreadable[0]}; remove them, or skip them (skip_unreadable=True)"
        )
    if not readable:
        raise ValueError(
            f"{root}: none of the {len(paths)} files can be read as a picture, "
            f"the first is {unreadable[0]}"
        )
    return readable, tuple(unreadable)


def _is_picture(path: Path, *, decode: bool) -> bool:
    try:
        with opened(path, str(path)) as image:
            if decode:
                image.convert("RGB")
    except UnreadableError:
        return False
    return True
