"""Writing a model for other engines: static token counts, any batch size, checked before the file is there."""

import tempfile
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from batvit.backbones.registry import anatomy_of
from batvit.data.loading import data_config
from batvit.deploy.format import PACKAGES, SUFFIXES, Engine, need, weights_beside
from batvit.deploy.load import load_engine
from batvit.deploy.metadata import PREPROCESSING, ExportMetadata
from batvit.deploy.onnx_format import write_onnx
from batvit.deploy.openvino_format import write_openvino
from batvit.deploy.torch_format import write_program
from batvit.inspection.summary import info
from batvit.module_copy import quiet_copy
from batvit.storage.files import check_writable

OLDEST_OPSET = 18
TOLERANCE = 1e-3
BATCH = 25


@dataclass(frozen=True)
class Exported:
    """A file that was written, and how it compares with the model it was written from."""

    path: Path
    card: ExportMetadata
    samples: int
    """images compared"""
    within: float
    """share of them, in percent, with every logit within 1e-3 of the model's"""
    agreement: float
    """share of them, in percent, with the same most likely class"""
    largest_difference: float
    """of any logit"""


class Logits(nn.Module):
    """A classifier that returns a tensor, whatever library it comes from."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: Tensor) -> Tensor:
        """Logits (B, classes) for images (B, 3, H, W)."""
        output = self.model(images)
        logits = output if isinstance(output, Tensor) else getattr(output, "logits", None)
        if not isinstance(logits, Tensor):
            raise TypeError(f"a {type(self.model).__name__} gives no logits; export a classifier")
        return logits


def export(
    model: nn.Module,
    path: str | Path,
    *,
    name: str | None = None,
    images: Tensor | None = None,
    calibration: Sequence[Tensor] | None = None,
    opset: int | None = None,
    preprocessing: Mapping[str, Any] | None = None,
) -> Exported:
    """Write a supported classifier, patched or not, for ONNX Runtime, OpenVINO or torch.export.

    The suffix decides: ``.onnx`` (above 1.5 GB with a ``.onnx.data`` beside it), ``.xml`` (OpenVINO, with a ``.bin`` beside
    it), ``.pt2``. The token counts are those of the configuration and the image size, so every shape but the batch is fixed.
    Weights are written in float32, and of the images nothing.

    Args:
        model: as :func:`batvit.patch` takes it; a copy of it is exported.
        path: a file that does not exist yet.
        name: what the file calls it; the class name by default.
        images: (B, 3, H, W), prepared as the model expects them, on which file and model are compared; noise by default.
        calibration: batches of such images; with them OpenVINO's tool (nncf) quantises to int8, all but the reduction.
        opset: of ONNX; torch's choice by default.
        preprocessing: what the file tells of the images, where the model does not tell it, as timm's do: ``mean``, ``std``,
            ``interpolation``, ``crop_pct``, ``crop_mode``; timm's defaults (ImageNet's mean and std) otherwise.

    Returns:
        What was written, and how far it is from the model.

    Raises:
        TypeError: if the model is not supported.
        ValueError: if the suffix, opset or images are wrong, an engine is missing, or the file computes something else.
        OSError: if the file exists or cannot be written. In all cases nothing is left behind.
    """
    path = Path(path)
    form = check_target(path, opset=opset, int8=calibration is not None)
    if calibration is not None and not calibration:
        raise ValueError(f"int8 needs images to calibrate on, got 0 batches for {path.name}")
    anatomy = anatomy_of(model)
    shape = (anatomy.channels, *anatomy.image_size)
    if images is None:
        images = torch.randn(8, *shape, generator=torch.Generator().manual_seed(0), device="cpu")
    if images.dim() != 4 or images.shape[1:] != shape or not len(images):
        raise ValueError(
            f"images must have shape (B, {', '.join(map(str, shape))}), got {tuple(images.shape)}"
        )
    images = images.to("cpu", torch.float32)
    plain = Logits(quiet_copy(model)).to("cpu", torch.float32).eval().requires_grad_(False)
    card = _card(model, plain(images[:1]), name, preprocessing or {}, int8=calibration is not None)
    with (
        tempfile.TemporaryDirectory(dir=path.parent, prefix=f".{path.name}.") as folder,
        warnings.catch_warnings(),
    ):
        # exporters warn of their own inner workings
        warnings.simplefilter("ignore")
        draft = Path(folder) / path.name
        try:
            program = _program(plain, images)
            WRITERS[form](program, draft, card, calibration, opset)
            result = _compared(plain, _loaded(draft), images, path)
        except (ValueError, OSError):
            raise
        except Exception as error:
            # engines raise classes of their own, of many lines
            why = " ".join(str(error).split())[:400]
            raise ValueError(
                f"{path}: {form} cannot take this model ({why}); nothing was written"
            ) from error
        _move(Path(folder), path.parent)
    return result


def check_target(path: Path, *, opset: int | None = None, int8: bool = False) -> str:
    """The format of a file to write; refused, as :func:`export` says, before a model is made for it."""
    form = next((form for form, suffix in SUFFIXES.items() if suffix == path.suffix), None)
    if form is None:
        raise ValueError(
            f"{path}: the suffix decides the format; end it in one of {', '.join(SUFFIXES.values())}"
        )
    for file in (path, weights_beside(path)) if form != "pt2" else (path,):
        _refuse_existing(check_writable(file))
    if int8 and form != "openvino":
        raise ValueError(f"int8 needs the format openvino (.xml), got {path.name}")
    for package in (*PACKAGES[form], *(("nncf",) if int8 else ())):
        need(form, package)
    if opset is not None:
        newest = need("onnx", "onnx").defs.onnx_opset_version() if form == "onnx" else 0
        if not OLDEST_OPSET <= opset <= newest:
            allowed = (
                f"must lie in {OLDEST_OPSET} .. {newest}"
                if form == "onnx"
                else "is for the format onnx"
            )
            raise ValueError(f"opset {allowed}, got {opset} for {path.name}")
    return form


def _loaded(draft: Path) -> Engine:
    try:
        return load_engine(draft)
    except ValueError as error:
        # it names the draft, and asks to export it again
        raise RuntimeError(str(error.__cause__ or error)) from error


def _move(source: Path, target: Path) -> None:
    """Put files where they belong, all or none."""
    files = sorted(source.iterdir())
    for file in files:
        # minutes have passed since it was asked
        _refuse_existing(target / file.name)
    for file in files:
        file.replace(target / file.name)


def _refuse_existing(path: Path) -> None:
    if path.exists():
        raise FileExistsError(f"{path} exists; remove it or name another file")


def _card(
    model: nn.Module,
    logits: Tensor,
    name: str | None,
    preprocessing: Mapping[str, Any],
    *,
    int8: bool,
) -> ExportMetadata:
    cost, settings = info(model, name=name), data_config(model)
    unknown = next((each for each in preprocessing if each not in PREPROCESSING), None)
    if unknown is not None:
        raise ValueError(
            f"preprocessing tells of mean, std, interpolation, crop_pct and crop_mode, got {unknown!r}"
        )
    settings |= preprocessing
    mean, std = (
        tuple(each) if isinstance(each, Sequence) else (each,)
        for each in (settings["mean"], settings["std"])
    )
    card = ExportMetadata(
        model=cost.model,
        config=cost.config,
        macs=cost.macs,
        dense_macs=cost.dense_macs,
        param_count=cost.param_count,
        num_classes=logits.shape[1],
        int8=int8,
        input_size=(anatomy_of(model).channels, *cost.img_size),
        mean=mean,
        std=std,
        interpolation=settings["interpolation"],
        crop_pct=settings["crop_pct"],
        crop_mode=settings["crop_mode"],
    )
    card.check_preprocessing()
    return card


def _program(plain: nn.Module, images: Tensor) -> torch.export.ExportedProgram:
    # a .pt2 keeps its example, which must be nobody's picture
    example = images.new_zeros(2, *images.shape[1:])
    return torch.export.export(plain, (example,), dynamic_shapes=({0: torch.export.Dim("batch")},))


@torch.inference_mode()
def _compared(plain: nn.Module, engine: Engine, images: Tensor, path: Path) -> Exported:
    expected, found = (
        torch.cat([run(batch) for batch in images.split(BATCH)]) for run in (plain, engine)
    )
    difference = (found - expected).abs().amax(dim=1)
    same = 100 * float((found.argmax(dim=1) == expected.argmax(dim=1)).double().mean())
    if not engine.card.int8 and not float(difference.median()) <= TOLERANCE:
        raise ValueError(
            f"{path}: the engine computes something else than the model: half of the images have a logit that differs by "
            f"{float(difference.median()):.2g} or more; nothing was written"
        )
    return Exported(
        path=path,
        card=engine.card,
        samples=len(images),
        within=100 * float((difference <= TOLERANCE).double().mean()),
        agreement=same,
        largest_difference=float(difference.max()),
    )


WRITERS = {"onnx": write_onnx, "openvino": write_openvino, "pt2": write_program}
