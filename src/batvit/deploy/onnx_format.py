"""ONNX: its files written, and run by ONNX Runtime."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from batvit.checks import installed
from batvit.deploy.format import Engine, Format
from batvit.deploy.metadata import METADATA_KEY, ExportMetadata

OLDEST_OPSET = 18


class OnnxFormat(Format):
    """ONNX, of one file; above 1.5 GB with a second one for the weights."""

    name = "onnx"
    packages = ("onnx", "onnxscript", "onnxruntime")

    def write(
        self,
        program: torch.export.ExportedProgram,
        path: Path,
        metadata: ExportMetadata,
        calibration: Sequence[Tensor] | None,
        opset: int | None,
    ) -> None:
        """Translate by torch's exporter, equal values sorted as torch sorts them."""
        written = torch.onnx.export(
            program,
            dynamo=True,
            opset_version=opset,
            input_names=["images"],
            output_names=["logits"],
            # what it calls the batch
            dynamic_shapes=({0: "batch"},),
            custom_translation_table={
                torch.ops.aten.sort.stable: _stable_sort,
                torch.ops.aten.linalg_vector_norm.default: _vector_norm,
                torch.ops.aten.max.dim: _max,
                torch.ops.aten.amin.default: _amin,
            },
            verbose=False,
        )
        assert written is not None
        made = written.model.opset_imports.get("")
        if opset not in (None, made):
            raise ValueError(
                f"{path.name}: opset {opset} cannot be had of this torch and onnxscript, "
                f"which give {made}; ask for that"
            )
        written.model.metadata_props[METADATA_KEY] = metadata.to_json()
        written.save(path)

    def load(self, path: Path, threads: int, precision: str) -> Engine:
        """Start a session of ONNX Runtime."""
        return OnnxEngine(path, threads)

    def files_beside(self, path: Path) -> tuple[Path, ...]:
        """Return where weights go that are more than one file can hold."""
        return (path.with_name(f"{path.name}.data"),)

    def check_opset(self, opset: int, path: Path) -> None:
        """Refuse an opset older than the translation, or newer than the package knows."""
        newest = installed("onnx").defs.onnx_opset_version()
        if not OLDEST_OPSET <= opset <= newest:
            raise ValueError(
                f"opset must lie in {OLDEST_OPSET} .. {newest}, got {opset} for {path.name}"
            )


class OnnxEngine(Engine):
    """ONNX Runtime on the CPU."""

    def __init__(self, path: Path, threads: int) -> None:
        runtime = installed("onnxruntime")
        settings = runtime.SessionOptions()
        settings.intra_op_num_threads = threads
        # errors alone
        settings.log_severity_level = 3
        # between runs its threads would go on turning, and take the cores of whatever runs next
        settings.add_session_config_entry("session.force_spinning_stop", "1")
        session = runtime.InferenceSession(str(path), settings, providers=["CPUExecutionProvider"])
        text = session.get_modelmeta().custom_metadata_map.get(METADATA_KEY)
        super().__init__(
            ExportMetadata.from_json(text, path), f"ONNX Runtime {runtime.__version__}"
        )
        self.session = session

    def run(self, images: Tensor) -> Tensor:
        """Return the logits of one run of the session."""
        (logits,) = self.session.run(None, {"images": images.numpy()})
        return torch.from_numpy(logits)


def _stable_sort(x: Any, stable: bool = True, dim: int = -1, descending: bool = False) -> Any:
    """Translate torch's stable sort: of equal values ONNX's TopK promises the lower index first."""
    ops = installed("onnxscript").opset18
    length = ops.Constant(value_ints=[x.shape[dim]])
    return ops.TopK(x, length, axis=dim, largest=int(descending), sorted=1)


# ONNX Runtime's quantiser infers shapes first, and has none for ReduceL2, ReduceMax and ReduceMin


def _vector_norm(
    x: Any,
    ord: float = 2.0,  # noqa: A002 - torch's name
    dim: Sequence[int] | None = None,
    keepdim: bool = False,
    dtype: int = -1,
) -> Any:
    """Translate a Euclidean length by a sum; others as torch's exporter does."""
    if ord != 2 or not dim:
        norms = installed("onnxscript.function_libs.torch_lib.ops.linalg")
        return norms.aten_linalg_vector_norm(x, ord, dim, keepdim, dtype)
    ops = installed("onnxscript").opset18
    if dtype != -1:
        x = ops.Cast(x, to=dtype)
    axes = ops.Constant(value_ints=list(dim))
    return ops.Sqrt(ops.ReduceSum(ops.Mul(x, x), axes, keepdims=int(keepdim)))


def _max(x: Any, dim: int, keepdim: bool = False) -> Any:
    """Translate the largest values and where they are; of equal ones the lower index, as torch."""
    return _first(x, dim, keepdim, largest=1)


def _amin(x: Any, dim: Sequence[int] = (), keepdim: bool = False) -> Any:
    """Translate the smallest values over one dimension; over more as torch's exporter does."""
    if len(dim) != 1:
        return installed("onnxscript.function_libs.torch_lib.ops.core").aten_amin(x, dim, keepdim)
    return _first(x, dim[0], keepdim, largest=0)[0]


def _first(x: Any, dim: int, keepdim: bool, largest: int) -> tuple[Any, Any]:
    """Return the first value in falling or rising order, and its index."""
    ops = installed("onnxscript").opset18
    one = ops.Constant(value_ints=[1])
    values, indices = ops.TopK(x, one, axis=dim, largest=largest, sorted=1)
    if keepdim:
        return values, indices
    axis = ops.Constant(value_ints=[dim])
    return ops.Squeeze(values, axis), ops.Squeeze(indices, axis)


FORMAT = OnnxFormat()
