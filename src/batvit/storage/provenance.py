"""Where a result comes from: versions, commit, machine, files."""

import platform
import subprocess
from collections.abc import Iterable, Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from batvit.checks import PRECISIONS

if TYPE_CHECKING:
    from torch import nn

PACKAGES = ("batvit", "torch", "torchvision", "timm", "accelerate", "numpy", "pillow")
"""the libraries that decide what comes out"""


def versions() -> dict[str, str]:
    """Return the version of Python and of each of :data:`PACKAGES`."""
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "unknown"
    return found


def git_commit() -> str | None:
    """Return the commit of the checkout that this file runs from; ``-dirty`` if it was changed.

    None if it runs from none, as where it is installed: a repository around it that does not track
    it tells nothing.
    """
    try:
        _git("ls-files", "--error-unmatch", __file__)
        # no tag stands for the commit
        return _git("describe", "--always", "--dirty", "--abbrev=40", "--exclude=*").strip()
    except (OSError, subprocess.CalledProcessError):
        return None


def _git(*arguments: str) -> str:
    """Return what git says in the folder of this file."""
    command = ["git", "-C", str(Path(__file__).parent), *arguments]
    # no argument is the user's
    done = subprocess.run(command, check=True, capture_output=True, text=True)  # noqa: S603
    return done.stdout


def stamp(path: str | Path) -> list[int]:
    """Return what tells a file from another at the same path: its size, and when it was changed."""
    status = Path(path).stat()
    return [status.st_size, status.st_mtime_ns]


def stamped(samples: Iterable[tuple[Path, int]]) -> list[list[Any]]:
    """Return plain values that tell labelled files from all others: path, label, size, change."""
    return [[str(path), label, *stamp(path)] for path, label in samples]


def model_metadata(model: "nn.Module", given: Mapping[str, Any]) -> dict[str, Any]:
    """Return metadata that says which model ran, in what and where.

    Args:
        model: its class, its weights' type and device stand where nothing is given.
        given: ``model``, ``precision`` and ``device`` as a user calls them, and anything else.
    """
    weight = next(model.parameters())
    dtype = str(weight.dtype).removeprefix("torch.")
    names = {of_torch: name for name, of_torch in PRECISIONS.items()}
    found = {
        "model": type(model).__name__,
        "precision": names.get(dtype, dtype),
        "device": str(weight.device),
    }
    return found | dict(given)


def machine(device: str) -> dict[str, str | int | None]:
    """Return what times depend on beside the settings: processor, threads, GPU, versions.

    Args:
        device: where the model runs, such as ``cpu`` or ``cuda:0``.
    """
    import torch

    gpu = torch.cuda.get_device_name(device) if device.startswith("cuda") else None
    return {
        "cpu": _processor() or platform.processor() or platform.machine(),
        "gpu": gpu,
        "threads": torch.get_num_threads(),
        "torch": str(torch.__version__),
        "batvit": version("batvit"),
    }


def _processor() -> str:
    """Return the name of the processor as Linux knows it; empty elsewhere."""
    path = Path("/proc/cpuinfo")
    if not path.is_file():
        return ""
    for line in path.read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return ""
