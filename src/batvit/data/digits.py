"""Handwritten digits for trying things without a download: 1,797 scans of 8 x 8 pixels that come with scikit-learn."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.utils.data import Dataset

CLASSES = 10


@dataclass
class Digits(Dataset[tuple[Tensor, Tensor]]):
    """Scans enlarged to the size that a model expects. Item: normalised picture (3, H, W), grey in three channels; label."""

    scans: Tensor
    """(n, 8, 8), 0 is ink and 1 is paper"""
    labels: Tensor
    """(n,), 0 to 9"""
    image_size: tuple[int, int]
    """(height, width) in pixels"""
    mean: Sequence[float]
    """of each channel, as in timm's transforms"""
    std: Sequence[float]

    def __len__(self) -> int:
        return len(self.scans)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        grey = torch.nn.functional.interpolate(
            self.scans[index, None, None], size=self.image_size, mode="bilinear"
        )[0]
        picture = (grey - torch.tensor(self.mean).view(3, 1, 1)) / torch.tensor(self.std).view(
            3, 1, 1
        )
        return picture, self.labels[index]


def digits(
    image_size: tuple[int, int], *, mean: Sequence[float], std: Sequence[float]
) -> tuple[Digits, Digits]:
    """1,437 scans for training and 360 for validation, every class in the same share: always the same split.

    Args:
        image_size: (height, width) in pixels.
        mean, std: of each of three channels, for the normalisation.
    """
    # scikit-learn takes longer to import than all of batvit, and only who trains on its digits needs it
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    found = load_digits()
    train, val = train_test_split(
        range(len(found.target)), test_size=360, stratify=found.target, random_state=0
    )
    scans, labels = (
        torch.tensor(1 - found.images / 16, dtype=torch.float32),
        torch.tensor(found.target),
    )
    first, second = (
        Digits(scans[part], labels[part], image_size, mean, std) for part in (train, val)
    )
    return first, second
