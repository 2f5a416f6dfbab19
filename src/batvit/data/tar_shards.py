"""Pictures of a folder of tar shards, read by timm: in a row, not by number."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from timm.data import create_dataset
from torch import Tensor
from torch.utils.data import Dataset

from batvit.checks import installed
from batvit.data.pictures import Transform
from batvit.storage.files import check_there, first_line


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

    timm passes over a picture that cannot be decoded, with a warning.

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
        self.size = int(self._open(training=False).reader.num_samples)
        if not self.size:
            raise ValueError(
                f"wds/{self.root}: split {self.split!r} does not say how many pictures it has; "
                "write _info.json, or give the number after it, as in "
                "train-{0000..0009}.tar|12800"
            )

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
            )
        except Exception as error:
            raise ValueError(
                f"wds/{self.root}: split {self.split!r} could not be opened ({first_line(error)})"
            ) from error
        dataset.transform = self.transform
        return dataset
