"""What stands in an exported file beside the model."""

import json
import math
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

METADATA_KEY = "batvit"
"""under which a file holds it"""
# what timm's transforms know
INTERPOLATIONS = ("nearest", "bilinear", "bicubic", "box", "hamming", "lanczos")
CROP_MODES = ("center", "squash", "border")
PREPROCESSING = ("mean", "std", "interpolation", "crop_pct", "crop_mode")
"""the fields that say how images are prepared"""


@dataclass(frozen=True, kw_only=True)
class ExportMetadata:
    """What an exported file says of its model, so that it can be fed and compared without it."""

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
        """Return it as it stands in the file."""
        return json.dumps(asdict(self))

    def check_preprocessing(self) -> None:
        """Refuse what no image can be resized, cropped or normalised with.

        Raises:
            ValueError, TypeError: naming what it is.
        """
        if self.interpolation not in INTERPOLATIONS:
            raise ValueError(
                f"interpolation must be one of {', '.join(INTERPOLATIONS)}, "
                f"got {self.interpolation!r}"
            )
        if self.crop_mode not in CROP_MODES:
            raise ValueError(
                f"crop_mode must be one of {', '.join(CROP_MODES)}, got {self.crop_mode!r}"
            )
        channels = self.input_size[0]
        finite = all(math.isfinite(scale) for scale in (*self.mean, *self.std, self.crop_pct))
        fitting = finite and len(self.mean) == len(self.std) == channels
        if not fitting or min(*self.std, self.crop_pct) <= 0:
            raise ValueError(
                f"images of {channels} channels take as many numbers as mean and std, "
                f"std and crop_pct above 0; got {self.mean}, {self.std} and {self.crop_pct}"
            )

    @classmethod
    def from_json(cls, text: str | None, path: Path) -> "ExportMetadata":
        """Read it from the text in a file, which may hold anything.

        Raises:
            ValueError: if it is no such metadata, naming the file.
        """
        try:
            fields = json.loads(text or "")
            # JSON has lists for tuples
            for name in ("input_size", "mean", "std"):
                fields[name] = tuple(fields[name])
            metadata = cls(**fields)
            metadata._check_numbers()
            metadata.check_preprocessing()
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
            raise ValueError(
                f"{path}: not a model that batvit exported ({error}); write it with batvit export"
            ) from error
        return metadata

    def _check_numbers(self) -> None:
        counts = (self.macs, self.dense_macs, self.param_count, self.num_classes)
        numbers = (*counts, *self.input_size)
        positive = all(isinstance(number, int) and number > 0 for number in numbers)
        if len(self.input_size) != 3 or not positive:
            raise ValueError(f"its numbers are {numbers}")
