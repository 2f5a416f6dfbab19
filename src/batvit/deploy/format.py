"""What all formats of exported models have in common."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

import torch
from torch import Tensor, nn

from batvit.checks import installed
from batvit.deploy.metadata import PREPROCESSING, ExportMetadata


class Engine(nn.Module):
    """An exported model, as a module that its engine runs on the CPU.

    Takes images (B, 3, H, W) in float32, gives logits (B, classes). ``metadata`` says what the
    model is, ``runtime`` what runs it, with its version. ``num_classes`` and ``pretrained_cfg``
    stand where timm looks for them.

    Examples:
        The file is that of the example of :func:`batvit.export`:

        >>> engine = batvit.load_engine("model.pt2")
        >>> engine.num_classes, engine.metadata.input_size
        (10, (3, 32, 32))
    """

    def __init__(self, metadata: ExportMetadata, runtime: str) -> None:
        super().__init__()
        self.metadata = metadata
        self.runtime = runtime
        self.num_classes = metadata.num_classes
        self.pretrained_cfg = {
            name: getattr(metadata, name) for name in ("input_size", *PREPROCESSING)
        }

    def train(self, mode: bool = True) -> "Engine":
        """Set ``training`` here alone: a graph of torch.export refuses to be told of a mode."""
        self.training = mode
        return self

    def run(self, images: Tensor) -> Tensor:
        """Return what the engine gives for images of the right shape."""
        raise NotImplementedError

    def forward(self, images: Tensor) -> Tensor:
        """Refuse images of another size in one line, which an engine would not."""
        shape = tuple(images.shape[1:])
        if shape != self.metadata.input_size:
            raise ValueError(f"this file takes images of {self.metadata.input_size}, got {shape}")
        return self.run(images)


class Format(ABC):
    """One format of exported models: a subclass in a file of its own, and a line in ``formats``."""

    name: ClassVar[str]
    """its name in :data:`batvit.deploy.formats.FORMATS`"""
    packages: ClassVar[tuple[str, ...]] = ()
    """without which it can be neither written nor run"""
    int8_packages: ClassVar[tuple[str, ...]] = ()
    """with which it is quantised; none if it cannot be"""
    precisions: ClassVar[tuple[str, ...]] = ("fp32",)
    """what its engine can compute in"""

    @abstractmethod
    def write(
        self,
        program: torch.export.ExportedProgram,
        path: Path,
        metadata: ExportMetadata,
        calibration: Sequence[Tensor] | None,
        opset: int | None,
    ) -> None:
        """Write a graph and its metadata.

        Args:
            program: images (B, 3, H, W) to logits (B, classes), B not fixed.
            path: the file; what holds its weights is written beside it.
            metadata: what the file shall say of the model.
            calibration: batches of images; quantise with them, if there are any.
            opset: of ONNX.
        """

    @abstractmethod
    def load(self, path: Path, threads: int, precision: str) -> Engine:
        """Return the engine of a file that is there.

        Args:
            path: the file.
            threads: of the CPU.
            precision: one of ``precisions``.

        Raises:
            Exception: whatever the engine raises for a file that is no good.
        """

    def files_beside(self, path: Path) -> tuple[Path, ...]:
        """Return the files beside the one that is named, in which weights may lie."""
        return ()

    def check_opset(self, opset: int, path: Path) -> None:
        """Refuse an opset that this format does not have.

        Raises:
            ValueError: naming what it may be.
        """
        raise ValueError(f"opset is for the format onnx, got {opset} for {path.name}")

    def check_installed(self, *, int8: bool = False) -> None:
        """Import what the engine needs.

        Raises:
            MissingPackageError: naming what to install.
        """
        for package in self.packages:
            installed(package)
        if int8:
            for package in self.int8_packages:
                installed(package)
