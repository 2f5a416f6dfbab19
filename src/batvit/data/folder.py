"""An image folder, checked before use: its pictures, their order and their labels."""

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

from timm.utils.misc import natural_key
from torch.utils.data import Dataset

from batvit.data.pictures import (
    Transform,
    UnreadableError,
    as_rgb,
    open_picture,
    opened,
    picture_suffixes,
)
from batvit.storage.files import check_there
from batvit.storage.reading import read_text, real_path


@dataclass
class Pictures(Dataset[tuple[Any, int]]):
    """Labelled pictures of an image folder."""

    samples: list[tuple[Path, int]]
    """file and label"""
    classes: tuple[str, ...]
    """folder names in label order"""
    skipped: tuple[Path, ...] = ()
    """files that could not be read and were left out on request"""
    others: tuple[Path, ...] = ()
    """files that were left out because their suffix is that of no picture that is decoded"""
    transform: Transform | None = None
    """what prepares a picture; it is given as it is without one"""

    def __len__(self) -> int:
        return len(self.samples)

    def evenly(self, number: int | None) -> "Pictures":
        """Return so many of the pictures, at equal distances; all if there are no more."""
        if number is None or number >= len(self):
            return self
        places = [i * len(self) // number for i in range(number)]
        return replace(self, samples=[self.samples[place] for place in places])

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
        FileNotFoundError, OSError: if there is no such file, or it is no regular one, or huge.
        ValueError: if it is no .txt file, is no text, is empty, or names a class twice.
    """
    if path.suffix != ".txt":
        raise ValueError(f"{path}: a class map is a .txt file with one folder name a line")
    try:
        lines = read_text(path).splitlines()
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

    Pictures are the files that end as those of :data:`batvit.data.pictures.FORMATS` do, such as
    .jpg, .png and .webp; hidden files are left out, and what else lies there is told. A class
    whose folder holds no picture keeps its label.

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

    Examples:
        A folder with two classes of four pictures each:

        >>> from batvit.data.folder import image_folder
        >>> pictures = image_folder("pictures")
        >>> len(pictures), pictures.classes
        (8, ('cat', 'dog'))
    """
    root = Path(root)
    found = _find(root)
    _check_layout(root, found.pictures)
    names = found.folders
    classes = tuple(names) if class_map is None else read_class_map(Path(class_map))
    _check_classes(root, names, classes, num_classes, class_map)
    kept, skipped = _readable(root, found.pictures, skip_unreadable=skip_unreadable)
    labels = {name: i for i, name in enumerate(classes)}
    samples = [(path, labels[path.parent.name]) for path in kept]
    return Pictures(samples, classes, skipped, found.others)


def unlabelled(root: str | Path, *, skip_unreadable: bool = False) -> Pictures:
    """List the pictures of a folder where no labels are wanted: all have label 0.

    They may lie in any sub-folder, or in none. Otherwise as :func:`image_folder`.

    Raises:
        FileNotFoundError, ValueError, UnreadableError: naming what is wrong and what to do.

    Examples:
        >>> from batvit.data.folder import unlabelled
        >>> len(unlabelled("pictures"))
        8
    """
    root = Path(root)
    found = _find(root)
    kept, skipped = _readable(root, found.pictures, skip_unreadable=skip_unreadable)
    return Pictures([(path, 0) for path in kept], (), skipped, found.others)


class _Found(NamedTuple):
    """What lies below a folder and is not hidden, in natural order."""

    pictures: list[Path]
    """in any sub-folder"""
    others: tuple[Path, ...]
    """files that are no pictures by their suffix"""
    folders: list[str]
    """names of the folders in the folder itself"""


def _find(root: Path) -> _Found:
    """List a folder.

    Raises:
        FileNotFoundError: if it is not there.
        ValueError: if it holds no pictures, or a link in it leads nowhere or to a folder that is
            listed already.
        OSError: if a sub-folder cannot be read.
    """
    check_there(root)
    pictures = []
    others = []
    suffixes = picture_suffixes()
    for path in _files(root):
        if path.suffix.lower() in suffixes:
            pictures.append(path)
        elif path.is_symlink() and not path.exists():
            raise ValueError(f"{path}: is a link that leads nowhere; remove it")
        else:
            others.append(path)
    if not pictures:
        first = f", the first of its {len(others)} files is {others[0]}" if others else ""
        raise ValueError(
            f"{root}: holds no pictures{first}; expected one folder a class with files in it "
            f"that end in {', '.join(suffixes)}"
        )
    pictures.sort(key=lambda path: _order(str(path)))
    names = [path.name for path in root.iterdir() if path.is_dir() and not _is_hidden(path.name)]
    return _Found(pictures, tuple(others), sorted(names, key=_order))


def _files(root: Path) -> Iterator[Path]:
    """Give all files below a folder, links followed, but what is hidden.

    What other programs hide there, such as .ipynb_checkpoints, is no class.
    """
    seen: dict[Path, str] = {}
    for where, folders, files in os.walk(root, followlinks=True, onerror=_raise):
        real = real_path(where)
        if real in seen:
            raise ValueError(
                f"{where}: leads to the same folder as {seen[real]}; remove the link, "
                "so that each picture is there once"
            )
        seen[real] = where
        # it goes on in what is left in the list, in this order
        folders[:] = sorted(name for name in folders if not _is_hidden(name))
        for name in sorted(files):
            if not _is_hidden(name):
                yield Path(where) / name


def _is_hidden(name: str) -> bool:
    return name.startswith(".")


def _raise(error: OSError) -> NoReturn:
    # else what cannot be listed would be left out in silence
    raise error


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
                as_rgb(image)
    except UnreadableError:
        return False
    return True
