"""OpenVINO: its files written, and run."""

import contextlib
import io
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from batvit.checks import installed
from batvit.deploy.format import Engine, Format
from batvit.deploy.metadata import METADATA_KEY, ExportMetadata

# the products and orders of the reduction itself; what they decide must not be rounded
PRECISE = (".*aten.matmul.*", ".*aten.bmm.*", ".*aten.sort.*", ".*argsort.*")
HINTS = {"fp32": "f32", "bf16": "bf16"}


class OpenVinoFormat(Format):
    """OpenVINO's pair of files, the graph in ``.xml`` and the weights in ``.bin``."""

    name = "openvino"
    packages = ("openvino",)
    int8_packages = ("nncf",)
    precisions = tuple(HINTS)

    def write(
        self,
        program: torch.export.ExportedProgram,
        path: Path,
        metadata: ExportMetadata,
        calibration: Sequence[Tensor] | None,
        opset: int | None,
    ) -> None:
        """Convert, and quantise all but the reduction if there is something to calibrate on."""
        openvino = installed("openvino")
        graph = openvino.convert_model(program)
        for node in graph.get_ops():
            # to keep equal values in the order of their index takes OpenVINO twenty times as long;
            # an argmax, which sorts by index, keeps it
            if node.get_type_name() == "TopK" and node.get_attributes()["sort"] == "value":
                node.set_attribute("stable", False)
        if calibration is not None:
            graph = _quantised(graph, calibration)
        graph.set_rt_info(metadata.to_json(), [METADATA_KEY])
        openvino.save_model(graph, path, compress_to_fp16=False)

    def load(self, path: Path, threads: int, precision: str) -> Engine:
        """Read the graph; it is compiled when images come."""
        return OpenVinoEngine(path, threads, precision)

    def files_beside(self, path: Path) -> tuple[Path, ...]:
        """Return where the weights are."""
        return (path.with_suffix(".bin"),)


class OpenVinoEngine(Engine):
    """OpenVINO on the CPU. Compiled once for every batch size: static shapes are faster."""

    def __init__(self, path: Path, threads: int, precision: str) -> None:
        openvino = installed("openvino")
        core = openvino.Core()
        capabilities = core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")
        if precision == "bf16" and "BF16" not in capabilities:
            raise ValueError(
                f"{path}: OpenVINO computes no bf16 on this processor, and would take fp32; "
                "give precision=fp32"
            )
        graph = core.read_model(path)
        text = None
        if graph.has_rt_info([METADATA_KEY]):
            text = str(graph.get_rt_info([METADATA_KEY]).astype(str))
        version = openvino.__version__.partition("-")[0]
        super().__init__(ExportMetadata.from_json(text, path), f"OpenVINO {version}")
        self.core = core
        self.graph = graph
        self.requests: dict[int, Any] = {}
        self.settings = {
            "INFERENCE_NUM_THREADS": threads,
            "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_PRECISION_HINT": HINTS[precision],
        }

    def run(self, images: Tensor) -> Tensor:
        """Return the logits of one request of the graph compiled for this batch size."""
        batch = len(images)
        if batch not in self.requests:
            self.requests[batch] = self._compiled(list(images.shape))
        logits = self.requests[batch].infer({0: images.numpy()}, share_inputs=True)[0]
        # the request writes its next result where this one lies
        return torch.from_numpy(logits.copy())

    def _compiled(self, shape: list[int]) -> Any:
        graph = self.graph.clone()
        graph.reshape(shape)
        return self.core.compile_model(graph, "CPU", self.settings).create_infer_request()


def _quantised(graph: Any, calibration: Sequence[Tensor]) -> Any:
    """Return a graph that computes in int8, its ranges measured on the images."""
    nncf = installed("nncf")
    nncf.set_log_level(logging.ERROR)
    images = [batch.to("cpu", torch.float32).numpy() for batch in calibration]
    # its progress would stand among what commands print
    with contextlib.redirect_stdout(io.StringIO()):
        return nncf.quantize(
            graph,
            nncf.Dataset(images),
            subset_size=len(images),
            model_type=nncf.ModelType.TRANSFORMER,
            ignored_scope=nncf.IgnoredScope(patterns=list(PRECISE), validate=False),
        )


FORMAT = OpenVinoFormat()
