"""Exported models, run by the engine they were written for: modules that can be evaluated and timed like any other."""

import importlib
import json
import logging
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from batvit.card import CARD, PREPROCESSING, Card

SUFFIXES = {"onnx": ".onnx", "openvino": ".xml", "pt2": ".pt2"}
PACKAGES = {"onnx": ("onnx", "onnxscript", "onnxruntime"), "openvino": ("openvino",), "pt2": ()}
# of what torch.export.load links, looks up, evaluates or unpickles, that which computes and no more
RECORDS = r"models/model\.json|data/(weights|constants|sample_inputs)/\w+(\.json|\.pt)?|extra/.*|\.data/\w+|(?!version)\w+"
ALLOWED = {
    "target": r"torch\.ops\.(aten\.(?!from_file)\w+\.\w+|higher_order\.wrap_with_set_grad_enabled)|_operator\.(add|mul)",
    "expr_str": r"(?>Symbol|Integer|Mul|Add|Max|Min|positive|integer|nonnegative|True|s\d++|-?\d++|[(), '=])++",
    "path_name": r"(weight|tensor)_\d+",
    "guards_code": r"\[\]",
}


class Engine(nn.Module):
    """A model in a file, as a module: images (B, 3, H, W), float32 on the CPU, to logits (B, classes).

    ``card`` says what it is, ``runtime`` what runs it, with its version. ``num_classes`` and ``pretrained_cfg`` stand where
    timm looks for them.
    """

    def __init__(self, card: Card, runtime: str) -> None:
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
            raise ValueError(f"this file takes images of {self.card.input_size}, got {tuple(images.shape[1:])}")
        return self.run(images)


class OnnxEngine(Engine):
    """ONNX Runtime on the CPU."""

    def __init__(self, path: Path, threads: int) -> None:
        runtime = need("onnx", "onnxruntime")
        settings = runtime.SessionOptions()
        settings.intra_op_num_threads, settings.log_severity_level = threads, 3
        # between runs its threads would go on turning, and take the cores of whatever runs next
        settings.add_session_config_entry("session.force_spinning_stop", "1")
        session = runtime.InferenceSession(str(path), settings, providers=["CPUExecutionProvider"])
        card = Card.from_json(session.get_modelmeta().custom_metadata_map.get(CARD), path)
        super().__init__(card, f"ONNX Runtime {runtime.__version__}")
        self.session = session

    def run(self, images: Tensor) -> Tensor:
        """One run of the session."""
        return torch.from_numpy(self.session.run(None, {"images": images.numpy()})[0])


class OpenVinoEngine(Engine):
    """OpenVINO on the CPU. Compiled once for every batch size: static shapes are faster."""

    def __init__(self, path: Path, threads: int, precision: str) -> None:
        openvino = need("openvino", "openvino")
        self.core = openvino.Core()
        if precision == "bf16" and "BF16" not in self.core.get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
            raise ValueError(f"{path}: OpenVINO computes no bf16 on this processor, and would take fp32; give precision fp32")
        model = self.core.read_model(path)
        text = str(model.get_rt_info([CARD]).astype(str)) if model.has_rt_info([CARD]) else None
        super().__init__(Card.from_json(text, path), f"OpenVINO {openvino.__version__.partition('-')[0]}")
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
            self.requests[len(images)] = self.core.compile_model(model, "CPU", self.settings).create_infer_request()
        # the request writes its next result where this one lies
        return torch.from_numpy(self.requests[len(images)].infer({0: images.numpy()}, share_inputs=True)[0].copy())


class ProgramEngine(Engine):
    """A graph of torch.export, run by torch."""

    def __init__(self, path: Path) -> None:
        extra = {f"{CARD}.json": ""}
        with _weights_only():
            _check_program(path)
            program = torch.export.load(path, extra_files=extra)
        super().__init__(Card.from_json(extra[f"{CARD}.json"], path), f"torch {torch.__version__}")
        self.graph = program.module()

    def run(self, images: Tensor) -> Tensor:
        """One run of the graph."""
        logits: Tensor = self.graph(images)
        return logits


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
        raise ValueError(f"{path}: an exported model is a file ending in {', '.join(SUFFIXES.values())}")
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file")
    if precision != "fp32" and (path.suffix != ".xml" or precision != "bf16"):
        raise ValueError(f"{path}: runs in fp32, got precision {precision}; OpenVINO's .xml runs in bf16, too")
    threads = threads or torch.get_num_threads()
    try:
        if path.suffix == ".onnx":
            return OnnxEngine(path, threads)
        return OpenVinoEngine(path, threads, precision) if path.suffix == ".xml" else ProgramEngine(path)
    except (ValueError, OSError):
        raise
    except Exception as error:
        # whatever an engine stumbles over, the file is no good
        raise ValueError(f"{path}: cannot be read ({' '.join(str(error).split())[:200]}); export it again") from error


def is_exported(path: str | Path) -> bool:
    """Whether a name is that of an exported file."""
    return Path(path).suffix in SUFFIXES.values()


def weights_beside(path: Path) -> Path:
    """Where an engine looks for the weights of a file: OpenVINO always, ONNX Runtime if they are more than a file can hold."""
    return path.with_suffix(".bin") if path.suffix == SUFFIXES["openvino"] else path.with_name(f"{path.name}.data")


def need(form: str, package: str) -> Any:
    """Import a package that an engine needs.

    Raises:
        ValueError: naming what to install.
    """
    try:
        return importlib.import_module(package)
    except ImportError as error:
        raise ValueError(f"the format {form} needs {package}: pip install 'batvit[export]' ({error})") from error


@contextmanager
def _weights_only() -> Iterator[None]:
    """Have torch.load read nothing but tensors, wherever it is called: a graph's file may hold pickles. Its log is silent."""
    name = "TORCH_FORCE_WEIGHTS_ONLY_LOAD"
    before = os.environ.get(name)
    os.environ[name] = "1"
    log = logging.getLogger("torch.export")
    level = log.level
    log.setLevel(logging.CRITICAL)
    try:
        yield
    except ValueError as error:
        # torch's does not name the file
        raise RuntimeError(str(error)) from error
    finally:
        log.setLevel(level)
        if before is None:
            del os.environ[name]
        else:
            os.environ[name] = before


def _check_program(path: Path) -> None:
    """Refuse a graph that is more than operators on tensors: torch evaluates, unpickles and links what else it finds."""
    # the reader that torch.export.load uses, so that both see the same records
    archive = torch._C.PyTorchFileReader(str(path))
    for name in archive.get_all_records():
        if not re.fullmatch(RECORDS, name):
            raise RuntimeError(f"{name} is none of what batvit writes")
        if name.endswith(".json") and not name.startswith("extra/"):
            _check_graph(json.loads(archive.get_record(name)))


def _check_graph(part: Any) -> None:
    for key, value in part.items() if isinstance(part, dict) else enumerate(part):
        if key in ALLOWED and not re.fullmatch(ALLOWED[key], str(value)):
            raise RuntimeError(f"{key} {str(value)[:50]!r} is none of what batvit writes")
        if isinstance(value, dict | list):
            _check_graph(value)
