"""OpenVINO: its files written, and run."""

import contextlib
import io
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from batvit.deploy.format import Engine, need
from batvit.deploy.metadata import METADATA_KEY, ExportMetadata

# the products and orders of the reduction itself; what they decide must not be rounded
PRECISE = (".*aten.matmul.*", ".*aten.bmm.*", ".*aten.sort.*", ".*argsort.*")


def write_openvino(
    program: torch.export.ExportedProgram,
    path: Path,
    card: ExportMetadata,
    calibration: Sequence[Tensor] | None,
    opset: int | None,
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
    written.set_rt_info(card.to_json(), [METADATA_KEY])
    openvino.save_model(written, path, compress_to_fp16=False)


class OpenVinoEngine(Engine):
    """OpenVINO on the CPU. Compiled once for every batch size: static shapes are faster."""

    def __init__(self, path: Path, threads: int, precision: str) -> None:
        openvino = need("openvino", "openvino")
        self.core = openvino.Core()
        if precision == "bf16" and "BF16" not in self.core.get_property(
            "CPU", "OPTIMIZATION_CAPABILITIES"
        ):
            raise ValueError(
                f"{path}: OpenVINO computes no bf16 on this processor, and would take fp32; give precision fp32"
            )
        model = self.core.read_model(path)
        text = (
            str(model.get_rt_info([METADATA_KEY]).astype(str))
            if model.has_rt_info([METADATA_KEY])
            else None
        )
        super().__init__(
            ExportMetadata.from_json(text, path),
            f"OpenVINO {openvino.__version__.partition('-')[0]}",
        )
        self.model, self.requests = model, dict[int, Any]()
        hint = {"fp32": "f32", "bf16": "bf16"}[precision]
        self.settings = {
            "INFERENCE_NUM_THREADS": threads,
            "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_PRECISION_HINT": hint,
        }

    def run(self, images: Tensor) -> Tensor:
        """One request of the model compiled for this batch size."""
        if len(images) not in self.requests:
            model = self.model.clone()
            model.reshape(list(images.shape))
            self.requests[len(images)] = self.core.compile_model(
                model, "CPU", self.settings
            ).create_infer_request()
        # the request writes its next result where this one lies
        return torch.from_numpy(
            self.requests[len(images)].infer({0: images.numpy()}, share_inputs=True)[0].copy()
        )
