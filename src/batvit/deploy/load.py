"""Exported models, run by the engine they were written for: modules that can be evaluated and timed like any other."""

from pathlib import Path

import torch

from batvit.deploy.format import SUFFIXES, Engine, is_exported
from batvit.deploy.onnx_format import OnnxEngine
from batvit.deploy.openvino_format import OpenVinoEngine
from batvit.deploy.torch_format import ProgramEngine


def load_engine(path: str | Path, *, precision: str = "fp32", threads: int | None = None) -> Engine:
    """Load what :func:`batvit.export` wrote, for the CPU.

    Args:
        path: an ``.onnx``, ``.xml`` (OpenVINO; its ``.bin`` beside it) or ``.pt2`` file.
        precision: what the engine computes in: fp32; bf16 with OpenVINO, which takes the same file.
        threads: of the engine; as many as torch has by default, and always for a ``.pt2``, which torch runs.

    Raises:
        ValueError: if the suffix, the precision or the content of the file is none of these; if the engine is not installed.
        FileNotFoundError: if there is no such file.
    """
    path = Path(path)
    if not is_exported(path):
        raise ValueError(
            f"{path}: an exported model is a file ending in {', '.join(SUFFIXES.values())}"
        )
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file")
    if precision != "fp32" and (path.suffix != ".xml" or precision != "bf16"):
        raise ValueError(
            f"{path}: runs in fp32, got precision {precision}; OpenVINO's .xml runs in bf16, too"
        )
    threads = threads or torch.get_num_threads()
    try:
        if path.suffix == ".onnx":
            return OnnxEngine(path, threads)
        return (
            OpenVinoEngine(path, threads, precision)
            if path.suffix == ".xml"
            else ProgramEngine(path)
        )
    except (ValueError, OSError):
        raise
    except Exception as error:
        # whatever an engine stumbles over, the file is no good
        raise ValueError(
            f"{path}: cannot be read ({' '.join(str(error).split())[:200]}); export it again"
        ) from error
