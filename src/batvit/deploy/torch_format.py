"""Graphs of torch.export: their files written, and run."""

import io
import json
import logging
import os
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from batvit.deploy.format import Engine, Format
from batvit.deploy.metadata import METADATA_KEY, ExportMetadata
from batvit.storage.weights import check_archive

METADATA_FILE = f"{METADATA_KEY}.json"

# a file may come from anyone, and torch.export.load links, looks up, evaluates or unpickles what
# it holds: only such records, and in them only such names and expressions, are let through
RECORDS = "|".join(
    (
        r"models/model\.json",
        r"data/(weights|constants|sample_inputs)/\w+(\.json|\.pt)?",
        r"extra/.*",
        r"\.data/\w+",
        r"(?!version)\w+",
    )
)
ALLOWED = {
    "target": (
        r"torch\.ops\.(aten\.(?!from_file)\w+\.\w+|higher_order\.wrap_with_set_grad_enabled)"
        r"|_operator\.(add|mul)"
    ),
    "expr_str": (
        r"(?>Symbol|Integer|Mul|Add|Max|Min|positive|integer|nonnegative|True"
        r"|s\d++|-?\d++|[(), '=])++"
    ),
    "path_name": r"(weight|tensor)_\d+",
    "guards_code": r"\[\]",
}


class TorchFormat(Format):
    """One ``.pt2`` file, which torch itself writes and runs."""

    name = "pt2"

    def write(
        self,
        program: torch.export.ExportedProgram,
        path: Path,
        metadata: ExportMetadata,
        calibration: Sequence[Tensor] | None,
        opset: int | None,
    ) -> None:
        """Save the graph as it is."""
        # torch's own writer of files ends the process where the disk is full
        content = io.BytesIO()
        torch.export.save(program, content, extra_files={METADATA_FILE: metadata.to_json()})
        path.write_bytes(content.getbuffer())

    def load(self, path: Path, threads: int, precision: str) -> Engine:
        """Read the graph; torch has its own number of threads."""
        return TorchEngine(path)


class TorchEngine(Engine):
    """A graph of torch.export, run by torch."""

    def __init__(self, path: Path) -> None:
        check_archive(path)
        extra = {METADATA_FILE: ""}
        with _weights_only():
            _check_program(path)
            program = torch.export.load(path, extra_files=extra)
        metadata = ExportMetadata.from_json(extra[METADATA_FILE], path)
        super().__init__(metadata, f"torch {torch.__version__}")
        self.graph = program.module()

    def run(self, images: Tensor) -> Tensor:
        """Return the logits of one run of the graph."""
        logits: Tensor = self.graph(images)
        return logits


@contextmanager
def _weights_only() -> Iterator[None]:
    """Have torch.load read tensors alone, wherever it is called: a graph's file may hold pickles.

    torch's log, which would name a refusal in many lines, is silent meanwhile.
    """
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
    """Refuse a file that holds more than operators on tensors.

    Raises:
        RuntimeError: naming what else it holds.
    """
    # the reader that torch.export.load uses, so that both see the same records
    archive = torch._C.PyTorchFileReader(str(path))
    for name in archive.get_all_records():
        if not re.fullmatch(RECORDS, name):
            raise RuntimeError(f"{name} is none of what batvit writes")
        if name.endswith(".json") and not name.startswith("extra/"):
            _check_graph(json.loads(archive.get_record(name)))


def _check_graph(part: Any) -> None:
    """Refuse a part of a graph, a JSON object or list, that names more than operators."""
    entries = part.items() if isinstance(part, dict) else enumerate(part)
    for key, value in entries:
        if key in ALLOWED and not re.fullmatch(ALLOWED[key], str(value)):
            raise RuntimeError(f"{key} {str(value)[:50]!r} is none of what batvit writes")
        if isinstance(value, dict | list):
            _check_graph(value)


FORMAT = TorchFormat()
