"""Pictures of a Hugging Face dataset, read by timm."""

import contextlib
from typing import Any

from timm.data.readers import create_reader
from torch.utils.data import Dataset

from batvit.checks import installed
from batvit.data.pictures import Transform, decode_picture
from batvit.storage.files import first_line


class HFDataset(Dataset[tuple[Any, int]]):
    """One split of a Hugging Face dataset with an ``image`` and a ``label`` column.

    Args:
        name: on the hub, or a local folder, as ``datasets.load_dataset`` takes it.
        split: its name.

    Raises:
        ValueError: if there is no such dataset, split or column.
    """

    transform: Transform | None = None
    """what prepares a picture; it is given as it is without one"""
    classes: tuple[str, ...] | None
    """names in label order; None where the dataset has none"""

    def __init__(self, name: str, split: str) -> None:
        installed("datasets")
        self.name = name
        try:
            self.reader: Any = create_reader(f"hfds/{name}", split=split)
            labels = self.reader.dataset.features["label"]
        except Exception as error:
            # whatever it is, what was asked for is not there
            raise ValueError(
                f"hfds/{name}: split {split!r} could not be read ({first_line(error)})"
            ) from error
        names = getattr(labels, "names", None)
        self.classes = None if names is None else tuple(names)

    def __len__(self) -> int:
        return len(self.reader)

    def __getitem__(self, index: int) -> tuple[Any, int]:
        file, label = self.reader[index]
        with contextlib.closing(file):
            image = decode_picture(file, f"hfds/{self.name}, picture {index}")
        if self.transform is None:
            return image, int(label)
        return self.transform(image), int(label)
