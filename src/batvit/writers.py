"""Writing the graph of a model in the format of an engine, with the card that says what it is."""

import contextlib
import io
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from batvit.card import CARD, Card
from batvit.engines import need

# the products and orders of the reduction itself; what they decide must not be rounded
PRECISE = (".*aten.matmul.*", ".*aten.bmm.*", ".*aten.sort.*", ".*argsort.*")


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
    written.model.metadata_props[CARD] = card.to_json()
    written.save(path)


def _write_openvino(
    program: torch.export.ExportedProgram, path: Path, card: Card, calibration: Sequence[Tensor] | None, opset: int | None
) -> None:
    openvino = need("openvino", "openvino")
    written = openvino.convert_model(program)
    for node in written.get_ops():
        # to keep equal values in the order of their index takes OpenVINO twenty times as long. A sort, not an argmax
        if node.get_type_name() == "TopK" and node.get_attributes()["sort"] == "value":
            node.set_attribute("stable", False)
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
