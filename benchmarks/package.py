"""The wheel as somebody else would get it: built, looked through, installed alone, tried.

python benchmarks/package.py dist

Needs what was built in that folder (``python -m build``) and uv. Into a new environment goes the
wheel with the packages of the core, and nothing else.
"""

import argparse
import re
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Iterable
from pathlib import Path

from batvit.checks import EXTRAS

LARGEST = 300_000
"""bytes of a file in the source distribution"""
NEEDED = ("LICENSE", "README.md", "pyproject.toml", "src/batvit/py.typed", "tests/conftest.py")
"""some of what the source distribution is made for: to build, to read and to test"""
TRY = """
import importlib.util, sys
import timm, torch, batvit
extras = [package for package in sys.argv[1:] if importlib.util.find_spec(package)]
assert not extras, f"not of the core: {extras}"
model = timm.create_model("deit_small_patch16_224").eval()
with torch.inference_mode(), batvit.trace(batvit.patch(model, keep_rate=0.7)) as trace:
    print(*model(torch.zeros(2, 3, 224, 224)).shape)
print(*(site.counts.tokens_out for site in trace.sites))
"""


def foreign(names: Iterable[str]) -> list[str]:
    """Return the files of a wheel that are neither the library's nor about it."""
    found = []
    for name in names:
        room = name.partition("/")[0]
        is_ours = room == "batvit" or room.endswith(".dist-info")
        if not is_ours or re.search(r"/tests?/|/test_|__pycache__", name):
            found.append(name)
    return found


def lacking(names: Iterable[str]) -> list[str]:
    """Return what a source distribution needs and has not; its files lie in one folder."""
    inside = {name.partition("/")[2] for name in names}
    return [name for name in NEEDED if name not in inside]


def check(wheel: Path, source: Path) -> None:
    """Look through both files.

    Raises:
        SystemExit: naming what should not be there, or is not.
    """
    with zipfile.ZipFile(wheel) as archive:
        wrong = foreign(archive.namelist())
        if wrong:
            raise SystemExit(f"{wheel.name} holds {', '.join(wrong)}")
    with tarfile.open(source) as archive:
        files = {member.name: member.size for member in archive.getmembers()}
    missing = lacking(files)
    if missing:
        raise SystemExit(f"{source.name} lacks {', '.join(missing)}")
    large = [name for name, size in files.items() if size > LARGEST]
    if large:
        raise SystemExit(f"{source.name} holds more than {LARGEST:,} bytes in {', '.join(large)}")
    for path in (wheel, source):
        print(f"{path.name}: {path.stat().st_size:,} bytes")


def install_and_try(wheel: Path, folder: Path) -> None:
    """Install a wheel into a new environment and use it there, with warnings as errors.

    Raises:
        subprocess.CalledProcessError: if something fails.
    """
    python = folder / "bin" / "python"
    uv = [sys.executable, "-m", "uv", "--quiet"]
    subprocess.run([*uv, "venv", "--python", sys.executable, folder], check=True)
    subprocess.run([*uv, "pip", "install", "--python", python, wheel.resolve()], check=True)
    strict = [python, "-I", "-W", "error"]
    for arguments in (
        ["-c", "import batvit; print(batvit.__version__)"],
        ["-m", "batvit", "--help"],
        ["-m", "batvit", "info", "deit_small_patch16_224", "--keep-rate", "0.7"],
        ["-c", TRY, *EXTRAS],
    ):
        subprocess.run([*strict, *arguments], check=True, cwd=folder)


def main() -> None:
    """Check and try what lies in a folder."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("folder", type=Path)
    folder = parser.parse_args().folder
    (wheel,) = folder.glob("*.whl")
    (source,) = folder.glob("*.tar.gz")
    check(wheel, source)
    with tempfile.TemporaryDirectory() as place:
        install_and_try(wheel, Path(place) / "venv")
    print("installed alone, it works")


if __name__ == "__main__":
    main()
