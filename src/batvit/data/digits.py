"""Handwritten digits to try things with: 1,797 scans of 8 x 8 pixels.

``digits.npz`` holds those of scikit-learn, which has them from the UCI repository (E. Alpaydin,
C. Kaynak: Optical Recognition of Handwritten Digits, CC BY 4.0): the training scans first.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional
from torch.utils.data import Dataset

CLASSES = 10
SCAN_SIZE = (8, 8)
TRAINING_SIZE = 1437
FILE = Path(__file__).with_name("digits.npz")
INK = 16
"""what a pixel full of ink has in the file; paper has 0"""


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
    with np.load(FILE, allow_pickle=False) as arrays:
        ink = torch.from_numpy(arrays["scans"])
        labels = torch.from_numpy(arrays["labels"]).long()
    scans = 1 - ink / INK
    return (
        Digits(scans[:TRAINING_SIZE], labels[:TRAINING_SIZE], image_size, mean, std),
        Digits(scans[TRAINING_SIZE:], labels[TRAINING_SIZE:], image_size, mean, std),
    )
