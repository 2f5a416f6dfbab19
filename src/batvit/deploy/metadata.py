"""What stands in an exported file beside the model."""

import json
import math
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

METADATA_KEY = "batvit"
# what timm's transforms know
INTERPOLATIONS = ("nearest", "bilinear", "bicubic", "box", "hamming", "lanczos")
CROP_MODES = ("center", "squash", "border")
PREPROCESSING = ("mean", "std", "interpolation", "crop_pct", "crop_mode")


@dataclass(frozen=True, kw_only=True)
class ExportMetadata:
    """What an exported file says of itself, so that it can be fed and compared without the model it came from."""

    model: str
    config: dict[str, Any] | None
    """the BATConfig it was patched with, or None for a dense model"""
    macs: int
    dense_macs: int
    param_count: int
    num_classes: int
    int8: bool
    input_size: tuple[int, int, int]
    """channels, height, width"""
    mean: tuple[float, ...]
    std: tuple[float, ...]
    interpolation: str
    crop_pct: float
    crop_mode: str

    def to_json(self) -> str:
        """As it stands in the file."""
        return json.dumps(asdict(self))

    def check_preprocessing(self) -> None:
        """Refuse what no image can be resized, cropped or normalised with.

        Raises:
            ValueError, TypeError: naming what it is.
        """
        for name, known in (("interpolation", INTERPOLATIONS), ("crop_mode", CROP_MODES)):
            if getattr(self, name) not in known:
                raise ValueError(
                    f"{name} must be one of {', '.join(known)}, got {getattr(self, name)!r}"
                )
        scales = (*self.mean, *self.std, self.crop_pct)
        fitting = len(self.mean) == len(self.std) == self.input_size[0] and all(
            map(math.isfinite, scales)
        )
        if not fitting or min(*self.std, self.crop_pct) <= 0:
            raise ValueError(
                f"images of {self.input_size[0]} channels take as many numbers as mean and std, std and crop_pct above 0; got "
                f"{self.mean}, {self.std} and {self.crop_pct}"
            )

    @classmethod
    def from_json(cls, text: str | None, path: Path) -> "ExportMetadata":
        """Read it from a file, which may hold anything.

        Raises:
            ValueError: if it is no card.
        """
        try:
            fields = json.loads(text or "")
            several = {name: tuple(fields[name]) for name in ("input_size", "mean", "std")}
            card = cls(**(fields | several))
            numbers = (
                card.macs,
                card.dense_macs,
                card.param_count,
                card.num_classes,
                *card.input_size,
            )
            if len(card.input_size) != 3 or not all(isinstance(n, int) and n > 0 for n in numbers):
                raise ValueError(f"its numbers are {numbers}")
            card.check_preprocessing()
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
            raise ValueError(
                f"{path}: not a model that batvit exported ({error}); write it with batvit export"
            ) from error
        return card
