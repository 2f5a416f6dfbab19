"""Writing the graph of a model in the format of an engine, with the card that says what it is."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from batvit.deploy.format import Engine, need
from batvit.deploy.metadata import METADATA_KEY, ExportMetadata


def write_onnx(
    program: torch.export.ExportedProgram,
    path: Path,
    card: ExportMetadata,
    calibration: Sequence[Tensor] | None,
    opset: int | None,
) -> None:
    ops = need("onnx", "onnxscript").opset18

    def stable_sort(x: Any, stable: bool = True, dim: int = -1, descending: bool = False) -> Any:
        # equal values go by rising index: ONNX promises that of TopK
        return ops.TopK(
            x, ops.Constant(value_ints=[x.shape[dim]]), axis=dim, largest=int(descending), sorted=1
        )

    written = torch.onnx.export(
        program,
        dynamo=True,
        opset_version=opset,
        input_names=["images"],
        output_names=["logits"],
        # what it calls the batch
        dynamic_shapes=({0: "batch"},),
        custom_translation_table={torch.ops.aten.sort.stable: stable_sort},
        verbose=False,
    )
    assert written is not None
    made = written.model.opset_imports.get("")
    if opset not in (None, made):
        raise ValueError(
            f"{path.name}: opset {opset} cannot be had of this torch and onnxscript, which give {made}; ask for that"
        )
    written.model.metadata_props[METADATA_KEY] = card.to_json()
    written.save(path)


class OnnxEngine(Engine):
    """ONNX Runtime on the CPU."""

    def __init__(self, path: Path, threads: int) -> None:
        runtime = need("onnx", "onnxruntime")
        settings = runtime.SessionOptions()
        settings.intra_op_num_threads, settings.log_severity_level = threads, 3
        # between runs its threads would go on turning, and take the cores of whatever runs next
        settings.add_session_config_entry("session.force_spinning_stop", "1")
        session = runtime.InferenceSession(str(path), settings, providers=["CPUExecutionProvider"])
        card = ExportMetadata.from_json(
            session.get_modelmeta().custom_metadata_map.get(METADATA_KEY), path
        )
        super().__init__(card, f"ONNX Runtime {runtime.__version__}")
        self.session = session

    def run(self, images: Tensor) -> Tensor:
        """One run of the session."""
        return torch.from_numpy(self.session.run(None, {"images": images.numpy()})[0])
