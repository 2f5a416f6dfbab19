"""Which pictures an exported file is compared and calibrated on, and how they are prepared."""

import random
from dataclasses import replace
from typing import Any

from timm.data import create_transform
from torch import Tensor

from batvit.data.folder import Pictures
from batvit.deploy.metadata import PREPROCESSING, ExportMetadata

COMPARED = 50
CALIBRATION = 300


def choose_pictures(
    pictures: Pictures, *, samples: int = COMPARED, int8: bool = False
) -> tuple[Pictures, Pictures | None]:
    """Choose pictures for :func:`batvit.export`, of a folder the same each time.

    Args:
        pictures: to choose from; left as they are.
        samples: how many to compare on; all if there are no more.
        int8: choose others, 300 at most, to calibrate on.

    Returns:
        The ``images`` of :func:`batvit.export`, and its ``calibration``, which is None without
        ``int8``.

    Raises:
        ValueError: if there are none left to calibrate on.
    """
    if int8 and len(pictures) <= samples:
        raise ValueError(
            f"int8=True needs more pictures than the {samples} compared on, got {len(pictures)}; "
            "give a lower samples=N, or more pictures"
        )
    shuffled = list(pictures.samples)
    random.Random(0).shuffle(shuffled)  # noqa: S311 - no secret
    compared = replace(pictures, samples=shuffled[:samples])
    if not int8:
        return compared, None
    return compared, replace(pictures, samples=shuffled[samples : samples + CALIBRATION])


def prepared(pictures: Pictures, metadata: ExportMetadata) -> list[Tensor]:
    """Decode pictures and prepare them as the metadata say, each as a batch of one (1, 3, H, W)."""
    settings: dict[str, Any] = {"input_size": metadata.input_size}
    for name in PREPROCESSING:
        settings[name] = getattr(metadata, name)
    chosen = replace(pictures, transform=create_transform(**settings))
    batches = []
    for index in range(len(chosen)):
        image, _ = chosen[index]
        batches.append(image.unsqueeze(0))
    return batches
