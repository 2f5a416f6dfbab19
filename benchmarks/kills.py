r"""Commands killed at random moments, then run again: nothing is lost, nothing half-written counts.

python benchmarks/kills.py --kills 10

Each command runs once undisturbed. Then it is killed so many times with SIGKILL, and with SIGTERM,
each time in a new folder, at a moment drawn by the seed; what lies there is read as a user would,
the command is run again (with --resume where there is one), and the result is compared with that
of the undisturbed run, but for measured times. It is of a small model on noise.
"""

import argparse
import json
import os
import random
import runpy
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import timm
import torch
from PIL import Image

# in the processes that are killed nothing is imported any more
from batvit.deploy.load import load_engine
from batvit.storage.drafts import SUFFIX
from batvit.storage.files import read_json
from batvit.storage.weights import save_weights

MODEL = "test_vit"
IMG_SIZE = 96
# that one enlarges its positions in its graph, which OpenVINO does not take
EXPORTED = "deit_tiny_patch16_224"
EXPORTED_SIZE = 32
CLASSES = 3
PICTURES = 8
SIGNALS = ("SIGKILL", "SIGTERM")
# what is measured, not computed
TIMES = ("speedup", "speedup_low", "speedup_high", "unsteady")
COMPARED = ("plan", "target", "config", "tokens", "gmacs", "top1", "agreement", "kl")

Result = Callable[[Path], Any]
"""reads what a command wrote into a folder; None if it is not there"""


def forked(action: Callable[[], int | None]) -> int:
    """Start an action in a process of its own, silent; return its number."""
    number = os.fork()
    if number:
        return number
    code = 70
    try:
        log = os.open("log.txt", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(log, 1)
        os.dup2(log, 2)
        code = action() or 0
    finally:
        os._exit(code)


def run_command(arguments: list[str]) -> int:
    """Run ``python -m batvit`` in this process; return its exit code."""
    sys.argv = ["batvit", *arguments]
    try:
        runpy.run_module("batvit", run_name="__main__")
    except SystemExit as error:
        return int(error.code or 0)
    return 0


def ended(number: int) -> int:
    """Wait for a process; return its exit code, negative for a signal."""
    _, status = os.waitpid(number, 0)
    return os.waitstatus_to_exitcode(status)


def commands(folder: Path) -> dict[str, list[str]]:
    """Write weights and pictures; return each command's arguments, with OUT for its folder."""
    small = model_arguments(MODEL, IMG_SIZE, folder)
    data = write_pictures(folder / "data")
    given = [*small, "--data", str(data), "--device", "cpu", "--batch-size", "5"]
    exported_model = model_arguments(EXPORTED, EXPORTED_SIZE, folder)
    return {
        "export": ["export", *exported_model, "-o", "OUT/model.xml"],
        "eval": ["eval", *given, "--json", "OUT/eval.json"],
        "tune": [
            *("tune", *given, "-o", "OUT/T", "--target-macs", "0.7"),
            *("--trials", "6", "--samples", "8"),
        ],
        "compare": [
            *("compare", *given, "-o", "OUT/C", "--plans", "bat,topk"),
            *("--targets", "0.7", "--rounds", "2", "--drawn", "1"),
        ],
    }


def model_arguments(name: str, size: int, folder: Path) -> list[str]:
    """Write random weights of a model; return the arguments that name both."""
    torch.manual_seed(0)
    model = timm.create_model(name, num_classes=CLASSES, img_size=size)
    weights = save_weights(model, folder / f"{name}.safetensors")
    settings = ["--num-classes", str(CLASSES), "--img-size", str(size)]
    return [name, "--checkpoint", str(weights), *settings, "--threads", "1"]


def write_pictures(folder: Path) -> Path:
    """Write noise, in a folder for each class."""
    generator = np.random.default_rng(0)
    for label in ("bird", "cat", "dog"):
        (folder / label).mkdir(parents=True)
        for i in range(PICTURES):
            pixels = generator.integers(0, 256, (100, 100, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / label / f"{i}.png")
    return folder


def exported(folder: Path) -> Any:
    """Return the logits of the exported file, computed in a process of its own."""
    path = folder / "model.xml"
    if not path.exists():
        return None
    told = folder / "logits.json"

    def run() -> None:
        generator = torch.Generator().manual_seed(0)
        images = torch.randn(2, 3, EXPORTED_SIZE, EXPORTED_SIZE, generator=generator)
        told.write_text(json.dumps(load_engine(path)(images).tolist()))

    assert ended(forked(run)) == 0, f"{path} is there, and cannot be run"
    logits = read_json(told)
    told.unlink()
    return logits


def evaluated(folder: Path) -> Any:
    """Return what eval wrote."""
    path = folder / "eval.json"
    return read_json(path) if path.exists() else None


def tuned(folder: Path) -> Any:
    """Return what tune found, without times."""
    path = folder / "T" / "result.json"
    if not path.exists():
        return None
    result = read_json(path)
    assert read_json(folder / "T" / "config.json") == result["config"]
    return untimed(result)


def compared(folder: Path) -> Any:
    """Return the rows of compare at equal MACs, without times."""
    path = folder / "C" / "result.json"
    if not path.exists():
        return None
    rows = read_json(path)["rows"]
    return [[row[name] for name in COMPARED] for row in rows if row["at"] == "macs"]


def untimed(value: Any) -> Any:
    """Return plain values without those that are times."""
    if isinstance(value, Mapping):
        return {name: untimed(inner) for name, inner in value.items() if name not in TIMES}
    return value


RESULTS: dict[str, Result] = {
    "export": exported,
    "eval": evaluated,
    "tune": tuned,
    "compare": compared,
}


def kill_once(name: str, arguments: list[str], kind: signal.Signals, seconds: float) -> dict:
    """Kill a command, read what is there, run it again; return what came of it."""
    with tempfile.TemporaryDirectory() as out:
        folder = Path(out)
        argv = [part.replace("OUT", out) for part in arguments]
        number = forked(lambda: run_command(argv))
        time.sleep(seconds)
        os.kill(number, kind)
        killed = ended(number) == -kind
        drafts = len(list(folder.rglob(f"*{SUFFIX}")))
        before = RESULTS[name](folder)
        # an exported file that is there is not written over
        if name != "export" or before is None:
            again = [*argv, "--resume"] if name in ("tune", "compare") else argv
            assert ended(forked(lambda: run_command(again))) == 0, Path("log.txt").read_text()
        return {
            "killed": killed,
            "drafts": drafts,
            "before": before,
            "after": RESULTS[name](folder),
            "left": len(list(folder.rglob(f"*{SUFFIX}"))),
        }


def kill_often(name: str, arguments: list[str], args: argparse.Namespace) -> bool:
    """Kill a command again and again, and print a line for each signal; return whether all held."""
    with tempfile.TemporaryDirectory() as out:
        start = time.perf_counter()
        argv = [part.replace("OUT", out) for part in arguments]
        assert ended(forked(lambda: run_command(argv))) == 0, Path("log.txt").read_text()
        seconds = time.perf_counter() - start
        whole = RESULTS[name](Path(out))
    held = True
    kills = args.kills
    for kind in map(signal.Signals.__getitem__, args.signals):
        moments = random.Random(f"{args.seed} {name} {kind.name}")  # noqa: S311 - no secret
        found = []
        for _ in range(kills):
            found.append(kill_once(name, arguments, kind, moments.uniform(0, seconds)))
        killed = sum(one["killed"] for one in found)
        drafts = sum(one["drafts"] for one in found)
        false = sum(one["before"] not in (None, whole) for one in found)
        same = sum(one["after"] == whole for one in found)
        left = sum(one["left"] for one in found)
        held = held and same == kills and not false and not left
        print(
            f"{name}, {kind.name}: {killed} of {kills} killed in {seconds:.1f} s, {drafts} drafts "
            f"left by them; {false} results that were not whole; run again {same} of {kills} end "
            f"the same, {left} drafts left",
            flush=True,
        )
    return held


def main() -> None:
    """Kill all commands."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=10, help="of each signal (10)")
    parser.add_argument("--seed", type=int, default=0, help="of the moments (0)")
    parser.add_argument("--commands", nargs="+", default=list(RESULTS), choices=RESULTS)
    parser.add_argument("--signals", nargs="+", default=SIGNALS, choices=SIGNALS)
    args = parser.parse_args()
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        arguments = commands(Path(folder))
        held = [kill_often(name, arguments[name], args) for name in args.commands]
    sys.exit(0 if all(held) else 1)


if __name__ == "__main__":
    main()
