"""Pictures that timm reads from elsewhere than folders: Hugging Face datasets (hfds/NAME) and tar shards (wds/DIR)."""

import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image
from timm.data import create_dataset
from torch import Tensor
from torch.utils.data import Dataset

from batvit.storage.files import check_there

PACKAGES = {"hfds": "datasets", "wds": "webdataset"}
Transform = Callable[[Image.Image], Any]


def check_reader(kind: str) -> None:
    """Refuse a kind of data whose package is not there.

    Raises:
        ValueError: naming what to install.
    """
    if importlib.util.find_spec(PACKAGES[kind]) is None:
        raise ValueError(
            f'{kind}/ needs the package {PACKAGES[kind]}; install it with pip install "batvit[data]"'
        )


@dataclass(frozen=True)
class Stream:
    """Pictures that can only be read one after the other, such as shards of tar files."""

    size: int
    """pictures an epoch, over all processes"""
    open: Callable[[int], Dataset[tuple[Tensor, int]]]
    """the part of this process of an epoch, endless or at least its share of the updates, shuffled by the number given"""

    def __len__(self) -> int:
        return self.size


@dataclass
class Shards:
    """One split of a folder of tar shards, as ``_info.json`` in it describes, or named as in ``train-{0000..0009}.tar|12800``.

    timm passes over a picture that cannot be decoded, with a warning.

    Raises:
        ValueError: if the split cannot be found, or does not say how many pictures it has.
    """

    root: Path
    split: str
    transform: Transform | None = None

    def __post_init__(self) -> None:
        check_reader("wds")
        check_there(self.root)
        self.size = int(self._open(training=False).reader.num_samples)
        if not self.size:
            raise ValueError(
                f"wds/{self.root}: split {self.split!r} does not say how many pictures it has; write _info.json, or give "
                "the number after it, as in train-{0000..0009}.tar|12800"
            )

    def stream(self, batch: int) -> Stream:
        """For training: shuffled anew every epoch; processes and workers share the shards, and give whole batches."""
        return Stream(self.size, lambda seed: self._open(training=True, seed=seed, batch=batch))

    def whole(self) -> Dataset[tuple[Tensor, int]]:
        """For counting: each picture once, in every process."""
        dataset: Dataset[tuple[Tensor, int]] = self._open(training=False)
        reader: Any = dataset.reader  # type: ignore[attr-defined]
        reader.dist_rank, reader.dist_num_replicas = 0, 1
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
            )
        except Exception as error:
            raise ValueError(
                f"wds/{self.root}: split {self.split!r} could not be opened ({short_reason(error)})"
            ) from error
        dataset.transform = self.transform
        return dataset


def short_reason(error: Exception) -> str:
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) < 200 else f"{text[:200]}…"
