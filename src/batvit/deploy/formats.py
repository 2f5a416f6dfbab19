"""The table of formats. It is read without loading torch: a format's own file is imported later."""

import importlib
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    import batvit.deploy.format


class Listed(NamedTuple):
    """A line of the table."""

    suffix: str
    """of the exported files, with its dot"""
    module: str
    """the file of this folder that writes and loads the format, and has it as ``FORMAT``"""


FORMATS = {
    "onnx": Listed(".onnx", "onnx_format"),
    "openvino": Listed(".xml", "openvino_format"),
    "pt2": Listed(".pt2", "torch_format"),
}
SUFFIXES = {listed.suffix: name for name, listed in FORMATS.items()}


def is_exported(path: str | Path) -> bool:
    """Return whether a file name ends as that of an exported model."""
    return Path(path).suffix in SUFFIXES


def format_of(path: str | Path) -> "batvit.deploy.format.Format":
    """Return the format of an exported file, which its suffix names.

    Raises:
        KeyError: if it names none; see :func:`is_exported`.
    """
    listed = FORMATS[SUFFIXES[Path(path).suffix]]
    form: batvit.deploy.format.Format
    form = importlib.import_module(f"batvit.deploy.{listed.module}").FORMAT
    return form


def files_of(path: str | Path) -> tuple[Path, ...]:
    """Return all files of an exported model, the one that is named first."""
    return (Path(path), *format_of(path).files_beside(Path(path)))
