"""Write a model for another engine: any batch size, checked before the file is there."""

import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from batvit.backbones.registry import anatomy_of
from batvit.data.folder import Pictures
from batvit.data.loading import data_config
from batvit.deploy.format import Engine, Format
from batvit.deploy.formats import SUFFIXES, files_of, format_of, is_exported
from batvit.deploy.load import load_engine
from batvit.deploy.metadata import PREPROCESSING, ExportMetadata
from batvit.deploy.pictures import prepared
from batvit.inspection.summary import info
from batvit.measure.accuracy import best_classes
from batvit.measure.logits import finite_logits
from batvit.module_copy import quiet_copy
from batvit.storage.drafts import draft_folder, publish, sweep
from batvit.storage.files import check_room, check_writable, no_room_named

TOLERANCE = 1e-3
"""of a logit, for an image to count as computed the same"""
BATCH = 25


@dataclass(frozen=True)
class Exported:
    """A file that was written, and how it compares with the model it was written from.

    Examples:
        As in the example of :func:`export`:

        >>> exported.path.name, exported.metadata.model
        ('model.pt2', 'VisionTransformer')
    """

    path: Path
    metadata: ExportMetadata
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
    images: Tensor | Pictures | None = None,
    calibration: Sequence[Tensor] | Pictures | None = None,
    opset: int | None = None,
    preprocessing: Mapping[str, Any] | None = None,
) -> Exported:
    """Write a supported classifier, patched or not, for ONNX Runtime, OpenVINO or torch.export.

    The suffix decides: ``.onnx`` (above 1.5 GB with a ``.onnx.data`` beside it), ``.xml``
    (OpenVINO, with a ``.bin`` beside it), ``.pt2``. The token counts are those of the configuration
    and the image size, so every shape but the batch is fixed. Weights are written in float32; the
    images are not stored.

    Args:
        model: as :func:`batvit.patch` takes it; a copy of it is exported.
        path: a file that does not exist yet.
        name: what the file calls it; the class name by default.
        images: on which file and model are compared: (B, 3, H, W), prepared as the model expects
            them, or pictures of :func:`batvit.deploy.pictures.choose_pictures`; noise by default.
        calibration: batches of such images, or pictures; with them OpenVINO's tool (nncf) quantises
            to int8, all but the reduction.
        opset: of ONNX; torch's choice by default.
        preprocessing: how images are prepared, where the model does not say it, as timm's do:
            ``mean``, ``std``, ``interpolation``, ``crop_pct``, ``crop_mode``; timm's defaults
            (ImageNet's mean and std) otherwise.

    Returns:
        What was written, and how far it is from the model.

    Raises:
        TypeError: if the model is not supported.
        ValueError: if the suffix, opset or images are wrong, an engine is missing, or the file
            computes something else.
        OSError: if the file exists or cannot be written. In all cases nothing is left behind.

    Examples:
        >>> model = timm.create_model("vit_tiny_patch16_224", img_size=32, depth=2, num_classes=10)
        >>> exported = batvit.export(batvit.patch(model, blocks=(0,)), "model.pt2")
        >>> exported.within
        100.0
    """
    path = Path(path)
    int8 = calibration is not None
    form = check_target(path, opset=opset, int8=int8)
    if calibration is not None and not len(calibration):
        raise ValueError(f"int8 needs images to calibrate on, got 0 batches for {path.name}")
    anatomy = anatomy_of(model)
    shape = (anatomy.channels, *anatomy.image_size)
    if isinstance(images, Tensor):
        _check_images(images, shape)
    plain = Logits(quiet_copy(model)).to("cpu", torch.float32).eval().requires_grad_(False)
    metadata = _metadata(model, plain, shape, name, preprocessing or {}, int8=int8)
    compared_on = _images(images, metadata)
    calibrated_on = _batches(calibration, metadata)
    with no_room_named(path), draft_folder(path) as folder:
        draft = folder / path.name
        with _errors_in_one_line(path, form, size=_bytes(plain)):
            form.write(_program(plain, shape), draft, metadata, calibrated_on, opset)
            result = _compared(plain, _loaded(draft), compared_on, path)
        publish(folder, path)
    return result


def check_target(path: Path, *, opset: int | None = None, int8: bool = False) -> Format:
    """Return the format of a file to write, or refuse it before a model is made for it.

    What a killed process left of this file is removed.

    Raises:
        ValueError, OSError: as :func:`export`.
    """
    if not is_exported(path):
        raise ValueError(
            f"{path}: the suffix decides the format; end it in one of {', '.join(SUFFIXES)}"
        )
    check_writable(path)
    sweep(path.parent, path.name)
    for file in files_of(path):
        if check_writable(file).exists():
            raise FileExistsError(f"{file} exists; remove it or name another file")
    form = format_of(path)
    if int8 and not form.int8_packages:
        raise ValueError(f"int8 needs the format openvino (.xml), got {path.name}")
    form.check_installed(int8=int8)
    if opset is not None:
        form.check_opset(opset, path)
    return form


def _check_images(images: Tensor, shape: tuple[int, ...]) -> None:
    if images.dim() != 4 or images.shape[1:] != shape or not len(images):
        sides = ", ".join(str(side) for side in shape)
        raise ValueError(f"images must have shape (B, {sides}), got {tuple(images.shape)}")


def _metadata(
    model: nn.Module,
    plain: Logits,
    shape: tuple[int, int, int],
    name: str | None,
    preprocessing: Mapping[str, Any],
    *,
    int8: bool,
) -> ExportMetadata:
    """Return what the file shall say of the model."""
    for field in preprocessing:
        if field not in PREPROCESSING:
            raise ValueError(
                "preprocessing tells of mean, std, interpolation, crop_pct and crop_mode, "
                f"got {field!r}"
            )
    cost = info(model, name=name)
    settings = data_config(model) | dict(preprocessing)
    metadata = ExportMetadata(
        model=cost.model,
        config=cost.config,
        macs=cost.macs,
        dense_macs=cost.dense_macs,
        param_count=cost.param_count,
        num_classes=plain(torch.zeros(1, *shape, device="cpu")).shape[1],
        int8=int8,
        input_size=shape,
        mean=_channels(settings["mean"]),
        std=_channels(settings["std"]),
        interpolation=settings["interpolation"],
        crop_pct=settings["crop_pct"],
        crop_mode=settings["crop_mode"],
    )
    metadata.check_preprocessing()
    return metadata


def _channels(values: float | Sequence[float]) -> tuple[float, ...]:
    return tuple(values) if isinstance(values, Sequence) else (values,)


def _images(images: Tensor | Pictures | None, metadata: ExportMetadata) -> Tensor:
    """Return the images to compare on (B, 3, H, W), in float32 on the CPU."""
    if images is None:
        generator = torch.Generator().manual_seed(0)
        return torch.randn(8, *metadata.input_size, generator=generator, device="cpu")
    if isinstance(images, Pictures):
        return torch.cat(prepared(images, metadata))
    return images.to("cpu", torch.float32)


def _batches(
    calibration: Sequence[Tensor] | Pictures | None, metadata: ExportMetadata
) -> Sequence[Tensor] | None:
    if isinstance(calibration, Pictures):
        return prepared(calibration, metadata)
    return calibration


def _program(plain: nn.Module, shape: tuple[int, int, int]) -> torch.export.ExportedProgram:
    # a .pt2 keeps its example, which must be nobody's picture
    example = torch.zeros(2, *shape, device="cpu")
    return torch.export.export(plain, (example,), dynamic_shapes=({0: torch.export.Dim("batch")},))


@contextmanager
def _errors_in_one_line(path: Path, form: Format, *, size: int) -> Iterator[None]:
    """Turn what an exporter or an engine raises into one line, and silence its warnings.

    Args:
        path: of the file to write.
        form: its format.
        size: bytes of the model, for which there may be no room.
    """
    try:
        with warnings.catch_warnings():
            # exporters warn of their own inner workings
            warnings.simplefilter("ignore")
            yield
    except (ValueError, OSError):
        raise
    except Exception as error:
        # not every engine says that the disk is full
        check_room(path, size)
        # engines raise classes of their own, of many lines
        why = " ".join(str(error).split())[:400]
        raise ValueError(
            f"{path}: {form.name} cannot take this model ({why}); nothing was written"
        ) from error


def _loaded(draft: Path) -> Engine:
    try:
        return load_engine(draft)
    except ValueError as error:
        # it names the draft, and asks to export it again
        raise RuntimeError(str(error.__cause__ or error)) from error


@torch.inference_mode()
def _compared(plain: nn.Module, engine: Engine, images: Tensor, path: Path) -> Exported:
    """Compare the logits of an engine with those of the model.

    Raises:
        ValueError: if half of the images or more have a logit that differs by over 1e-3, unless the
            engine is int8.
    """
    batches = images.split(BATCH)
    expected = torch.cat([finite_logits(plain, batch, name="the model") for batch in batches])
    logits = torch.cat([engine(batch) for batch in batches])
    difference = (logits - expected).abs().amax(dim=1)
    median = float(difference.median())
    # not "above": a logit may be no number
    if not engine.metadata.int8 and not median <= TOLERANCE:
        raise ValueError(
            f"{path}: the engine computes something else than the model: half of the images have "
            f"a logit that differs by {median:.2g} or more; nothing was written"
        )
    same_class = best_classes(logits)[:, 0] == best_classes(expected)[:, 0]
    return Exported(
        path=path,
        metadata=engine.metadata,
        samples=len(images),
        within=_percent(difference <= TOLERANCE),
        agreement=_percent(same_class),
        largest_difference=float(difference.max()),
    )


def _percent(holds: Tensor) -> float:
    return 100 * float(holds.double().mean())


def _bytes(model: nn.Module) -> int:
    return sum(value.numel() * value.element_size() for value in model.state_dict().values())
