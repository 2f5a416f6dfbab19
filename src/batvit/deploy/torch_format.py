"""Graphs of torch.export: their files written, and run."""

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

from batvit.deploy.format import Engine
from batvit.deploy.metadata import METADATA_KEY, ExportMetadata


def write_program(
    program: torch.export.ExportedProgram,
    path: Path,
    card: ExportMetadata,
    calibration: Sequence[Tensor] | None,
    opset: int | None,
) -> None:
    torch.export.save(program, path, extra_files={f"{METADATA_KEY}.json": card.to_json()})


# of what torch.export.load links, looks up, evaluates or unpickles, that which computes and no more
RECORDS = r"models/model\.json|data/(weights|constants|sample_inputs)/\w+(\.json|\.pt)?|extra/.*|\.data/\w+|(?!version)\w+"


ALLOWED = {
    "target": r"torch\.ops\.(aten\.(?!from_file)\w+\.\w+|higher_order\.wrap_with_set_grad_enabled)|_operator\.(add|mul)",
    "expr_str": r"(?>Symbol|Integer|Mul|Add|Max|Min|positive|integer|nonnegative|True|s\d++|-?\d++|[(), '=])++",
    "path_name": r"(weight|tensor)_\d+",
    "guards_code": r"\[\]",
}


class ProgramEngine(Engine):
    """A graph of torch.export, run by torch."""

    def __init__(self, path: Path) -> None:
        extra = {f"{METADATA_KEY}.json": ""}
        with _weights_only():
            _check_program(path)
            program = torch.export.load(path, extra_files=extra)
        super().__init__(
            ExportMetadata.from_json(extra[f"{METADATA_KEY}.json"], path),
            f"torch {torch.__version__}",
        )
        self.graph = program.module()

    def run(self, images: Tensor) -> Tensor:
        """One run of the graph."""
        logits: Tensor = self.graph(images)
        return logits


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
