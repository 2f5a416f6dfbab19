"""From --data to pictures: image folders, Hugging Face datasets, tar shards."""

from dataclasses import dataclass
from pathlib import Path

from batvit.data.folder import Pictures, image_folder
from batvit.data.hf_dataset import Table
from batvit.data.tar_shards import Shards

KINDS = ("hfds", "wds")


@dataclass(frozen=True)
class Sources:
    """Training and validation pictures of the same classes, not yet prepared for a model."""

    train: Pictures | Table | Shards
    val: Pictures | Table | Shards
    classes: tuple[str, ...] | None
    """names in label order; None where they are not told"""


def find(
    data: str,
    *,
    splits: tuple[str, str] | None = None,
    class_map: str | None = None,
    skip_unreadable: bool = False,
) -> Sources:
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
            raise ValueError(
                f"{data}: a class map and skipping what is unreadable are for image folders; leave them out"
            )
        if kind == "wds":
            shards = [Shards(Path(name), split) for split in splits or ("train", "val")]
            return Sources(shards[0], shards[1], None)
        tables = [Table(name, split) for split in splits or ("train", "validation")]
        return Sources(tables[0], tables[1], tables[0].classes)
    roots = [Path(data) / split for split in splits or ("train", "val")]
    train, val = (
        image_folder(root, class_map=class_map, skip_unreadable=skip_unreadable) for root in roots
    )
    _check_folders(
        {
            root: {found.classes[label] for _, label in found.samples}
            for root, found in zip(roots, (train, val), strict=True)
        }
    )
    if len(train.classes) < 2:
        raise ValueError(
            f"{data}: all pictures are of one class ({train.classes[0]}); give two classes or more"
        )
    return Sources(train, val, train.classes)


def _check_folders(used: dict[Path, set[str]]) -> None:
    """Every class has pictures, for training and for validation."""
    there = {
        folder.name
        for root in used
        for folder in root.iterdir()
        if folder.is_dir() and not folder.name.startswith(".")
    }
    for root, names in used.items():
        missing = min(there - names, default=None)
        if missing is not None:
            others = " and ".join(str(other) for other in used)
            raise ValueError(
                f"{root / missing}: holds no pictures; put some there, or remove the class from {others}"
            )
