"""What all formats of exported models have in common."""

import importlib
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from batvit.deploy.metadata import PREPROCESSING, ExportMetadata

SUFFIXES = {"onnx": ".onnx", "openvino": ".xml", "pt2": ".pt2"}


PACKAGES = {"onnx": ("onnx", "onnxscript", "onnxruntime"), "openvino": ("openvino",), "pt2": ()}


class Engine(nn.Module):
    """A model in a file, as a module: images (B, 3, H, W), float32 on the CPU, to logits (B, classes).

    ``card`` says what it is, ``runtime`` what runs it, with its version. ``num_classes`` and ``pretrained_cfg`` stand where
    timm looks for them.
    """

    def __init__(self, card: ExportMetadata, runtime: str) -> None:
        super().__init__()
        self.card, self.runtime = card, runtime
        self.num_classes = card.num_classes
        self.pretrained_cfg = {name: getattr(card, name) for name in ("input_size", *PREPROCESSING)}

    def train(self, mode: bool = True) -> "Engine":
        """Has no training mode: a graph of torch.export in it would refuse to be told of one."""
        self.training = mode
        return self

    def run(self, images: Tensor) -> Tensor:
        """What the engine gives for images of the right shape."""
        raise NotImplementedError

    def forward(self, images: Tensor) -> Tensor:
        """Refuse images of another size, which an engine would do in words of its own."""
        if tuple(images.shape[1:]) != self.card.input_size:
            raise ValueError(
                f"this file takes images of {self.card.input_size}, got {tuple(images.shape[1:])}"
            )
        return self.run(images)


def is_exported(path: str | Path) -> bool:
    """Whether a name is that of an exported file."""
    return Path(path).suffix in SUFFIXES.values()


def weights_beside(path: Path) -> Path:
    """Where an engine looks for the weights of a file: OpenVINO always, ONNX Runtime if they are more than a file can hold."""
    return (
        path.with_suffix(".bin")
        if path.suffix == SUFFIXES["openvino"]
        else path.with_name(f"{path.name}.data")
    )


def need(form: str, package: str) -> Any:
    """Import a package that an engine needs.

    Raises:
        ValueError: naming what to install.
    """
    try:
        return importlib.import_module(package)
    except ImportError as error:
        raise ValueError(
            f"the format {form} needs {package}: pip install 'batvit[export]' ({error})"
        ) from error
