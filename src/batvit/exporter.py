"""Writing a model for other engines: static token counts, any batch size, checked before the file is there."""

import contextlib
import io
import logging
import tempfile
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from batvit.backbones.patch import anatomy_of
from batvit.card import CARD, Card
from batvit.copies import quiet_copy
from batvit.data import data_config
from batvit.engines import PACKAGES, SUFFIXES, Engine, load_engine, need
from batvit.files import check_writable
from batvit.info import info

OLDEST_OPSET = 18
TOLERANCE = 1e-3
BATCH = 25
# the products and orders of the reduction itself; what they decide must not be rounded
PRECISE = (".*aten.matmul.*", ".*aten.bmm.*", ".*aten.sort.*", ".*argsort.*")


@dataclass(frozen=True)
class Exported:
    """A file that was written, and how it compares with the model it was written from."""

    path: Path
    card: Card
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

    The suffix decides: ``.onnx``, ``.xml`` (OpenVINO, with a ``.bin`` beside it), ``.pt2``. The token counts are those of the
    configuration and the image size, so every shape but the batch is fixed. Weights are written in float32.

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
    form = _check(path, opset, calibration)
    anatomy = anatomy_of(model)
    shape = (anatomy.channels, *anatomy.image_size)
    if images is None:
        images = torch.randn(8, *shape, generator=torch.Generator().manual_seed(0), device="cpu")
    if images.dim() != 4 or images.shape[1:] != shape or not len(images):
        raise ValueError(f"images must have shape (B, {', '.join(map(str, shape))}), got {tuple(images.shape)}")
    images = images.to("cpu", torch.float32)
    plain = Logits(quiet_copy(model)).to("cpu", torch.float32).eval().requires_grad_(False)
    card = _card(model, plain(images[:1]), name, preprocessing or {}, int8=calibration is not None)
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=f".{path.name}.") as folder, warnings.catch_warnings():
        # exporters warn of their own inner workings
        warnings.simplefilter("ignore")
        draft = Path(folder) / path.name
        try:
            program = _program(plain, images)
            WRITERS[form](program, draft, card, calibration, opset)
            result = _compared(plain, load_engine(draft), images, path)
        except (ValueError, OSError):
            raise
        except Exception as error:
            # engines raise classes of their own, of many lines
            why = " ".join(str(error).split())[:400]
            raise ValueError(f"{path}: {form} cannot take this model ({why}); nothing was written") from error
        for written in sorted(Path(folder).iterdir()):
            written.replace(path.parent / written.name)
    return result


def _check(path: Path, opset: int | None, calibration: Sequence[Tensor] | None) -> str:
    form = next((form for form, suffix in SUFFIXES.items() if suffix == path.suffix), None)
    if form is None:
        raise ValueError(f"{path}: the suffix decides the format; end it in one of {', '.join(SUFFIXES.values())}")
    for file in (path, path.with_suffix(".bin")) if form == "openvino" else (path,):
        if check_writable(file).exists():
            raise FileExistsError(f"{file} exists; remove it or name another file")
    if calibration is not None and (form != "openvino" or not calibration):
        what = "images to calibrate on" if form == "openvino" else "the format openvino (.xml)"
        raise ValueError(f"int8 needs {what}, got {path.name} with {len(calibration)} batches")
    for package in (*PACKAGES[form], *(("nncf",) if calibration is not None else ())):
        need(form, package)
    if opset is not None:
        newest = need("onnx", "onnx").defs.onnx_opset_version() if form == "onnx" else 0
        if not OLDEST_OPSET <= opset <= newest:
            allowed = f"must lie in {OLDEST_OPSET} .. {newest}" if form == "onnx" else "is for the format onnx"
            raise ValueError(f"opset {allowed}, got {opset} for {path.name}")
    return form


def _card(model: nn.Module, logits: Tensor, name: str | None, preprocessing: Mapping[str, Any], *, int8: bool) -> Card:
    cost, settings = info(model, name=name), data_config(model)
    unknown = next((each for each in preprocessing if each not in settings or each == "input_size"), None)
    if unknown is not None:
        raise ValueError(f"preprocessing tells of mean, std, interpolation, crop_pct and crop_mode, got {unknown!r}")
    settings |= preprocessing
    mean, std = (tuple(each) if isinstance(each, Sequence) else (each,) for each in (settings["mean"], settings["std"]))
    card = Card(
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
    card.check_scales()
    return card


def _program(plain: nn.Module, images: Tensor) -> torch.export.ExportedProgram:
    example = images[:1].expand(2, -1, -1, -1).contiguous()
    return torch.export.export(plain, (example,), dynamic_shapes=({0: torch.export.Dim("batch")},))


def _write_onnx(
    program: torch.export.ExportedProgram, path: Path, card: Card, calibration: Sequence[Tensor] | None, opset: int | None
) -> None:
    ops = need("onnx", "onnxscript").opset18

    def stable_sort(x: Any, stable: bool = True, dim: int = -1, descending: bool = False) -> Any:
        # equal values go by rising index: ONNX promises that of TopK
        return ops.TopK(x, ops.Constant(value_ints=[x.shape[dim]]), axis=dim, largest=int(descending), sorted=1)

    written = torch.onnx.export(
        program,
        dynamo=True,
        opset_version=opset,
        input_names=["images"],
        output_names=["logits"],
        custom_translation_table={torch.ops.aten.sort.stable: stable_sort},
        verbose=False,
    )
    assert written is not None
    written.model.metadata_props[CARD] = card.to_json()
    written.save(path)


def _write_openvino(
    program: torch.export.ExportedProgram, path: Path, card: Card, calibration: Sequence[Tensor] | None, opset: int | None
) -> None:
    openvino = need("openvino", "openvino")
    written = openvino.convert_model(program)
    if calibration is not None:
        nncf = need("openvino", "nncf")
        nncf.set_log_level(logging.ERROR)
        # its progress would stand among what commands print
        with contextlib.redirect_stdout(io.StringIO()):
            written = nncf.quantize(
                written,
                nncf.Dataset([batch.to("cpu", torch.float32).numpy() for batch in calibration]),
                subset_size=len(calibration),
                model_type=nncf.ModelType.TRANSFORMER,
                ignored_scope=nncf.IgnoredScope(patterns=list(PRECISE), validate=False),
            )
    written.set_rt_info(card.to_json(), [CARD])
    openvino.save_model(written, path, compress_to_fp16=False)


def _write_program(
    program: torch.export.ExportedProgram, path: Path, card: Card, calibration: Sequence[Tensor] | None, opset: int | None
) -> None:
    torch.export.save(program, path, extra_files={f"{CARD}.json": card.to_json()})


WRITERS = {"onnx": _write_onnx, "openvino": _write_openvino, "pt2": _write_program}


@torch.inference_mode()
def _compared(plain: nn.Module, engine: Engine, images: Tensor, path: Path) -> Exported:
    expected, found = (torch.cat([run(batch) for batch in images.split(BATCH)]) for run in (plain, engine))
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
