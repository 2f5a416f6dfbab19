"""Handwritten digits to try things with: 1,797 scans of 8 x 8 pixels, part of scikit-learn."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional
from torch.utils.data import Dataset

CLASSES = 10
SCAN_SIZE = (8, 8)
VALIDATION_SIZE = 360


@dataclass
class Digits(Dataset[tuple[Tensor, Tensor]]):
    """Scans enlarged to the size that a model expects.

    An item is a normalised picture (3, H, W), grey in three channels, and its label.
    """

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
        scan = self.scans[index, None, None]
        grey = functional.interpolate(scan, size=self.image_size, mode="bilinear")[0]
        mean = torch.tensor(self.mean).view(3, 1, 1)
        std = torch.tensor(self.std).view(3, 1, 1)
        return (grey - mean) / std, self.labels[index]


def digits(
    image_size: tuple[int, int], *, mean: Sequence[float], std: Sequence[float]
) -> tuple[Digits, Digits]:
    """Return 1,437 scans for training and 360 for validation: always the same split.

    Every class has the same share of both.

    Args:
        image_size: (height, width) in pixels.
        mean: of each of three channels, for the normalisation.
        std: of each of three channels, for the normalisation.
    """
    # scikit-learn takes longer to import than all of batvit, and only these digits need it
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    bunch = load_digits()
    train, val = train_test_split(
        range(len(bunch.target)),
        test_size=VALIDATION_SIZE,
        stratify=bunch.target,
        random_state=0,
    )
    # scikit-learn has 16 for ink and 0 for paper
    scans = torch.tensor(1 - bunch.images / 16, dtype=torch.float32)
    labels = torch.tensor(bunch.target)
    return (
        Digits(scans[train], labels[train], image_size, mean, std),
        Digits(scans[val], labels[val], image_size, mean, std),
    )
