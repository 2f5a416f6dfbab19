"""Training and validation pictures, opened by a name: whatever kind of data it stands for."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from batvit.data.digits import CLASSES, SCAN_SIZE, Digits, digits
from batvit.data.folder import Pictures, image_folder
from batvit.data.hf_dataset import HFDataset
from batvit.data.tar_shards import Shards
from batvit.storage.reading import real_path

DIGITS = "digits"


@dataclass(frozen=True)
class Sources:
    """Training and validation pictures of the same classes, not yet prepared for a model."""

    train: Pictures | HFDataset | Shards | Digits
    val: Pictures | HFDataset | Shards | Digits
    classes: tuple[str, ...] | None
    """names in label order; None where the data do not tell them"""


def find(
    data: str,
    *,
    splits: tuple[str, str] | None = None,
    class_map: str | None = None,
    skip_unreadable: bool = False,
) -> Sources:
    """Open training and validation pictures, and check them.

    Args:
        data: a folder that holds ``train/`` and ``val/`` with one sub-folder a class;
            ``hfds/NAME``, a Hugging Face dataset; ``wds/DIR``, a folder of tar shards; or
            ``digits``, scikit-learn's.
        splits: names of the training and the validation split, where they are not ``train`` and
            ``val`` (of a folder, or shards) or ``validation`` (of a Hugging Face dataset).
        class_map: of a folder; see :func:`batvit.data.folder.image_folder`.
        skip_unreadable: of a folder; see :func:`batvit.data.folder.image_folder`.

    Raises:
        ValueError, OSError: naming what is wrong and what to do.
    """
    if splits is not None and splits[0] == splits[1]:
        raise ValueError(
            f"splits=({', '.join(splits)}): pictures to train on would be those to validate on; "
            "give two splits"
        )
    kind, _, name = data.partition("/")
    is_folder = data != DIGITS and not (kind in ("hfds", "wds") and name)
    if is_folder:
        return _find_folders(
            data, splits or ("train", "val"), class_map=class_map, skip_unreadable=skip_unreadable
        )
    if class_map is not None or skip_unreadable:
        raise ValueError(
            f"{data}: a class map and skipping what is unreadable are for image folders; "
            "leave them out"
        )
    if kind == "hfds":
        return _find_hf_dataset(name, splits or ("train", "validation"))
    if kind == "wds":
        return _find_shards(Path(name), splits or ("train", "val"))
    if splits is not None:
        raise ValueError(
            f"{data}: are split already, got splits=({', '.join(splits)}); leave them out"
        )
    return _find_digits()


def _find_folders(
    data: str, splits: tuple[str, str], *, class_map: str | None, skip_unreadable: bool
) -> Sources:
    train_root = Path(data) / splits[0]
    val_root = Path(data) / splits[1]
    if real_path(train_root) == real_path(val_root):
        raise ValueError(
            f"{train_root} and {val_root} are the same folder; "
            "give pictures to validate on that are not trained on"
        )
    train = image_folder(train_root, class_map=class_map, skip_unreadable=skip_unreadable)
    val = image_folder(val_root, class_map=class_map, skip_unreadable=skip_unreadable)
    _check_folders({train_root: _used_classes(train), val_root: _used_classes(val)})
    if len(train.classes) < 2:
        raise ValueError(
            f"{data}: all pictures are of one class ({train.classes[0]}); give two classes or more"
        )
    return Sources(train, val, train.classes)


def _find_hf_dataset(name: str, splits: tuple[str, str]) -> Sources:
    train = HFDataset(name, splits[0])
    val = HFDataset(name, splits[1])
    return Sources(train, val, train.classes)


def _find_shards(root: Path, splits: tuple[str, str]) -> Sources:
    return Sources(Shards(root, splits[0]), Shards(root, splits[1]), None)


def _find_digits() -> Sources:
    train, val = digits(SCAN_SIZE, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))
    return Sources(train, val, tuple(str(label) for label in range(CLASSES)))


def _used_classes(pictures: Pictures) -> set[str]:
    """Return the names of the classes that have pictures."""
    return {pictures.classes[label] for _, label in pictures.samples}


def _check_folders(used: Mapping[Path, set[str]]) -> None:
    """Refuse a class that has a folder somewhere, but not pictures in every root.

    Args:
        used: for each root the names of the classes that have pictures.
    """
    folders = set()
    for root in used:
        for path in root.iterdir():
            if path.is_dir() and not path.name.startswith("."):
                folders.add(path.name)
    for root, names in used.items():
        missing = min(folders - names, default=None)
        if missing is not None:
            roots = " and ".join(str(path) for path in used)
            raise ValueError(
                f"{root / missing}: holds no pictures; "
                f"put some there, or remove the class from {roots}"
            )
