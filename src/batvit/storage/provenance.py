"""Where a result comes from: versions, commit, machine, files."""

import platform
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch


def versions() -> dict[str, str]:
    """Of Python and of the libraries that decide what comes out."""
    found = {"python": platform.python_version()}
    for name in ("batvit", "torch", "torchvision", "timm", "accelerate", "numpy", "pillow"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "unknown"
    return found


def git_commit() -> str | None:
    """The commit of the checkout this library runs from, with ``-dirty`` if it was changed; None if it runs from none."""
    here = Path(__file__).parent
    try:
        tracked = ("git", "-C", str(here), "ls-files", "--error-unmatch", __file__)
        subprocess.run(tracked, check=True, capture_output=True)
        described = (
            "git",
            "-C",
            str(here),
            "describe",
            "--always",
            "--dirty",
            "--abbrev=40",
            "--exclude=*",
        )
        return subprocess.run(described, check=True, capture_output=True, text=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None


def stamp(path: str | Path) -> list[int]:
    """What tells a file from another at the same path."""
    found = Path(path).stat()
    return [found.st_size, found.st_mtime_ns]


def machine(device: str) -> dict[str, str | int | None]:
    """What times depend on beside the settings: processor, its threads, GPU, versions."""
    told = Path("/proc/cpuinfo")
    lines = told.read_text().splitlines() if told.is_file() else []
    named = next(
        (line.partition(":")[2].strip() for line in lines if line.startswith("model name")), ""
    )
    gpu = torch.cuda.get_device_name(device) if device.startswith("cuda") else None
    found = {"torch": str(torch.__version__), "batvit": version("batvit")}
    cpu = named or platform.processor() or platform.machine()
    return {"cpu": cpu, "gpu": gpu, "threads": torch.get_num_threads(), **found}
