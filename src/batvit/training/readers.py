"""Pictures that timm reads from elsewhere than folders: Hugging Face datasets (hfds/NAME) and tar shards (wds/DIR)."""

import contextlib
import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image
from timm.data import create_dataset
from timm.data.readers import create_reader
from torch import Tensor
from torch.utils.data import Dataset

from batvit.data import decode_picture
from batvit.files import check_there
from batvit.training.batches import Stream

PACKAGES = {"hfds": "datasets", "wds": "webdataset"}
Transform = Callable[[Image.Image], Any]


def check_reader(kind: str) -> None:
    """Refuse a kind of data whose package is not there.

    Raises:
        ValueError: naming what to install.
    """
    if importlib.util.find_spec(PACKAGES[kind]) is None:
        raise ValueError(f'{kind}/ needs the package {PACKAGES[kind]}; install it with pip install "batvit[data]"')


class Table(Dataset[tuple[Any, int]]):
    """One split of a Hugging Face dataset with an ``image`` and a ``label`` column.

    Args:
        name: on the hub, or a local folder, as ``datasets.load_dataset`` takes it.
        split: its name.

    Raises:
        ValueError: if there is no such dataset, split or column.
    """

    transform: Transform | None = None

    def __init__(self, name: str, split: str) -> None:
        check_reader("hfds")
        self.name = name
        try:
            self.reader: Any = create_reader(f"hfds/{name}", split=split)
            labels = self.reader.dataset.features["label"]
        except Exception as error:
            # whatever it is, what was asked for is not there
            raise ValueError(f"hfds/{name}: split {split!r} could not be read ({_reason(error)})") from error
        names = getattr(labels, "names", None)
        self.classes: tuple[str, ...] | None = None if names is None else tuple(names)

    def __len__(self) -> int:
        return len(self.reader)

    def __getitem__(self, index: int) -> tuple[Any, int]:
        file, label = self.reader[index]
        with contextlib.closing(file):
            image = decode_picture(file, f"hfds/{self.name}, picture {index}")
        return (image if self.transform is None else self.transform(image)), int(label)


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
                f"wds/{self.root}", str(self.root), self.split, is_training=training, seed=seed, batch_size=batch
            )
        except Exception as error:
            raise ValueError(f"wds/{self.root}: split {self.split!r} could not be opened ({_reason(error)})") from error
        dataset.transform = self.transform
        return dataset


def _reason(error: Exception) -> str:
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) < 200 else f"{text[:200]}…"
