"""Pictures of a folder of tar shards, read by timm: in a row, not by number."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import Any

from PIL import Image
from timm.data import create_dataset
from timm.data.readers.reader_wds import ReaderWds
from torch import Tensor
from torch.utils.data import Dataset

from batvit.checks import installed
from batvit.data.pictures import Transform, as_rgb, opened
from batvit.storage.files import check_there, first_line
from batvit.storage.reading import LARGEST_TEXT, check_file

INFO = ("_info.json", "info.json")
"""the files in which timm looks for the splits"""

MOST_SHARDS = 100_000
LETTERS = 52
# braces that hold no others
BRACES = re.compile(r"\{([^{}]*)\}")


@dataclass(frozen=True)
class Stream:
    """Pictures to train on that can only be read one after the other."""

    size: int
    """pictures an epoch, over all processes"""
    open: Callable[[int], Dataset[tuple[Tensor, int]]]
    """the part of this process of an epoch, shuffled by the number given: endless, or at least as
    much as its updates take"""

    def __len__(self) -> int:
        return self.size


@dataclass
class Shards:
    """One split of a folder of tar shards.

    A picture that a folder would refuse by its header ends the run, by its name. timm passes over
    one that is cut short, with a warning.

    Raises:
        FileNotFoundError: if there is no such folder.
        ValueError: if the split cannot be found, or does not say how many pictures it has.
    """

    root: Path
    split: str
    """as ``_info.json`` in the folder names it, or as in ``train-{0000..0009}.tar|12800``"""
    transform: Transform | None = None
    """what prepares a picture"""

    def __post_init__(self) -> None:
        installed("webdataset")
        check_there(self.root)
        for name in INFO:
            if (self.root / name).exists():
                check_file(self.root / name, largest=LARGEST_TEXT)
        _check_count(self.split)
        reader = self._open(training=False).reader
        for shard in reader.split_info.filenames:
            check_file(self.root / shard)
        self.size = self._size_of(reader.num_samples)

    def _size_of(self, number: Any) -> int:
        """Return how many pictures there are, as the split tells."""
        if not number:
            raise ValueError(
                f"wds/{self.root}: split {self.split!r} does not say how many pictures it has; "
                "write _info.json, or give the number after it, as in "
                "train-{0000..0009}.tar|12800"
            )
        if not isinstance(number, int) or number < 0:
            raise ValueError(
                f"wds/{self.root}: split {self.split!r} has {number!r} pictures; "
                "correct the number in _info.json, or that after the split"
            )
        return number

    def stream(self, batch: int) -> Stream:
        """Return the pictures to train on, shuffled anew every epoch.

        Processes and their workers share the shards.

        Args:
            batch: pictures a batch; each process gives whole ones.
        """
        return Stream(self.size, lambda seed: self._open(training=True, seed=seed, batch=batch))

    def whole(self) -> Dataset[tuple[Tensor, int]]:
        """Return the pictures to evaluate on: each once, and all of them in every process."""
        dataset: Dataset[tuple[Tensor, int]] = self._open(training=False)
        reader: Any = dataset.reader  # type: ignore[attr-defined]
        reader.dist_rank = 0
        reader.dist_num_replicas = 1
        return dataset

    def _open(self, *, training: bool, seed: int = 0, batch: int = 1) -> Any:
        try:
            dataset: Any = create_dataset(
                f"wds/{self.root}",
                str(self.root),
                self.split,
                is_training=training,
                seed=seed,
                batch_size=batch,
                # what Pillow decodes is made RGB here, as that of all other pictures
                input_img_mode="",
            )
        except Exception as error:
            raise ValueError(
                f"wds/{self.root}: split {self.split!r} could not be opened ({first_line(error)})"
            ) from error
        dataset.transform = partial(_prepared, self.transform)
        dataset.reader.__class__ = StrictReader
        return dataset


class StrictReader(ReaderWds):
    """timm's reader, which is given no picture that would be refused in a folder."""

    def _lazy_init(self) -> None:
        super()._lazy_init()  # type: ignore[no-untyped-call]
        pipeline: Any = self.ds
        # before the two last stages, which decode and rename
        check = partial(_checked, self.input_key.split(";"))
        pipeline.pipeline.insert(-2, installed("webdataset").map(check))


def _checked(suffixes: Sequence[str], sample: dict[str, Any]) -> dict[str, Any]:
    """Refuse a picture by its header, before timm decodes it.

    Args:
        suffixes: of pictures, of which timm decodes the first that is there.
        sample: the files of one name, by their suffixes.

    Raises:
        UnreadableError: as :func:`batvit.data.pictures.open_picture`.
    """
    for suffix in suffixes:
        if suffix in sample:
            name = f"{sample['__url__']}: {sample['__key__']}.{suffix}"
            with opened(BytesIO(sample[suffix]), name):
                return sample
    return sample


def _prepared(transform: Transform | None, image: Image.Image) -> Any:
    """Make a decoded picture RGB, and prepare it."""
    rgb = as_rgb(image)
    return rgb if transform is None else transform(rgb)


def _check_count(split: str) -> None:
    """Refuse a pattern with braces that stands for more shards than there can be.

    Raises:
        ValueError: naming the pattern.
    """
    shards = 1
    inner = BRACES.search(split)
    rest = split
    while inner is not None:
        shards *= _alternatives(inner[1])
        rest = rest[: inner.start()] + rest[inner.end() :]
        inner = BRACES.search(rest)
    if shards > MOST_SHARDS:
        raise ValueError(
            f"split {split!r} stands for more than {MOST_SHARDS:,} shards; correct the numbers"
        )


def _alternatives(inside: str) -> int:
    """Return how many names the inside of braces stands for, or more."""
    low, dots, high = inside.partition("..")
    if not dots:
        return inside.count(",") + 1
    numbers = re.match(r"-?\d+", low), re.match(r"-?\d+", high)
    if numbers[0] is None or numbers[1] is None:
        return LETTERS
    # more digits stand for too many anyhow
    return abs(int(numbers[1][0][:20]) - int(numbers[0][0][:20])) + 1
