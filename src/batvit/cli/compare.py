"""Compare reductions: every plan at the same MACs and the same time, on the same pictures."""

import argparse
import io
import platform
import shlex
import sys
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from rich.progress import Progress
from torch import nn

from batvit.backbones.patch import reduced_copy
from batvit.benchmark import as_csv
from batvit.budget import CONTENDERS
from batvit.cli import models, options
from batvit.compare import fit_plans, watch
from batvit.config import BATConfig
from batvit.data import Pictures, data_config, image_folder, loader, placed
from batvit.files import check_folder, write_atomic
from batvit.plots import plot_pareto
from batvit.report import html
from batvit.study import Row, Study, as_result, flat
from batvit.trace import trace
from batvit.training.record import claimed, git_commit, versions
from batvit.visualize import draw, from_tensor, save

TARGETS = [0.65, 0.5]
REPORT, TABLE, RESULT, PLOT = "report.html", "table.csv", "result.json", "pareto.png"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Model, pictures, plans, targets and output."""
    options.add_model(parser)
    options.add_data(parser)
    plans = f"with commas; by default all: {','.join(CONTENDERS)}"
    parser.add_argument("--plans", type=_plans, default=list(CONTENDERS), metavar="NAME,…", help=plans)
    targets = f"shares of the dense model's MACs, and of its time, with commas ({','.join(map(str, TARGETS))})"
    parser.add_argument("--targets", type=_targets, default=TARGETS, metavar="SHARE,…", help=targets)
    parser.add_argument("--samples", type=options.at_least(1), metavar="N", help="pictures, taken evenly; all by default")
    parser.add_argument("--rounds", type=options.at_least(1), default=15, metavar="N", help="measurements of each model (15)")
    parser.add_argument("--drawn", type=options.at_least(0), default=2, metavar="N", help="pictures whose groups are drawn (2)")
    parser.add_argument("-o", "--output", required=True, metavar="DIR", help=f"a new folder for {REPORT}, {TABLE}, {RESULT}")
    parser.add_argument("--resume", action="store_true", help="go on with the comparison in the output folder")
    options.add_device(parser)


def run(args: argparse.Namespace) -> None:
    """Fit, watch, report."""
    folder = check_folder(args.output)
    options.check_outputs(args.json)
    options.silence_profiler()
    dense = models.load_dense(args, pretrained=True)
    classes: Any = dense.num_classes
    pictures = image_folder(args.data, class_map=args.class_map, num_classes=classes, skip_unreadable=args.skip_unreadable)
    pictures.samples = options.evenly(pictures.samples, args.samples)
    about = _about(args, dense, pictures)
    with claimed(folder):
        study = Study.open(folder, about, resume=args.resume)
        _compare(args, study, dense, pictures)
        _write(args, study, dense, pictures)


def _compare(args: argparse.Namespace, study: Study, dense: nn.Module, pictures: Pictures) -> None:
    """Fit every plan, then show all of them the pictures."""
    images = models.noise(dense, args.batch_size)
    with Progress(console=options.progress_console, transient=True) as bar:
        task = bar.add_task("", total=None)
        fit_plans(
            *(study, dense, images),
            plans=args.plans,
            targets=args.targets,
            rounds=args.rounds,
            progress=lambda text: bar.update(task, description=text),
        )
        if len(study.rows) < 2:
            raise ValueError(f"no plan meets a target: {study.failed[0]['reason']}")
        bar.update(task, description="pictures", total=len(pictures))
        batches = loader(pictures, dense, batch_size=args.batch_size, workers=args.workers)
        watch(study, dense, batches, samples=len(pictures), progress=lambda seen: bar.update(task, completed=seen))


def _about(args: argparse.Namespace, dense: nn.Module, pictures: Pictures) -> dict[str, Any]:
    """What must stay the same when a comparison goes on; plans and targets may be added."""
    size = data_config(dense)["input_size"][1:]
    names = ("model", "checkpoint", "data", "class_map", "precision", "device", "batch_size", "threads", "rounds")
    return {name: getattr(args, name) for name in names} | {"img_size": list(size), "samples": len(pictures)}


def _write(args: argparse.Namespace, study: Study, dense: nn.Module, pictures: Pictures) -> None:
    command = shlex.join(["batvit", *sys.argv[1:]])
    result = as_result(study, {"command": command, "environment": _environment()})
    rows = [result["dense"], *result["rows"]]
    folder = study.folder
    save(plot_pareto(result["rows"], result["dense"]), folder / PLOT)
    write_atomic(folder / TABLE, as_csv([flat(row) for row in rows]))
    options.write_json(folder / RESULT, result)
    options.write_json(args.json, result)
    drawn = _drawn(study, dense, pictures, args.drawn, min(args.targets))
    write_atomic(folder / REPORT, html(result, plot=(folder / PLOT).read_bytes(), pictures=drawn))
    _show(study)
    options.say(f"wrote {folder / REPORT}, {folder / TABLE}, {folder / RESULT}, {folder / PLOT}")


def _environment() -> dict[str, Any]:
    found = versions()
    return {
        "cpu": _processor(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "threads": torch.get_num_threads(),
        **{name: found[name] for name in ("python", "torch", "timm", "batvit")},
        "commit": git_commit(),
        "date": datetime.now(UTC).date().isoformat(),
    }


def _processor() -> str:
    """What the system calls its processor."""
    told = Path("/proc/cpuinfo")
    lines = told.read_text().splitlines() if told.is_file() else []
    named = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "")
    return named or platform.processor() or platform.machine()


@torch.inference_mode()
def _drawn(study: Study, dense: nn.Module, pictures: Pictures, number: int, target: float) -> list[tuple[str, bytes]]:
    """The groups of each plan at equal MACs, for some pictures, as PNG."""
    settings, strips = data_config(dense), []
    loaded = [image for _, (image, _) in zip(range(number), loader(pictures, dense, batch_size=1), strict=False)]
    rows = [row for row in study.rows if row.at == "macs" and row.target == target]
    for i, image in enumerate(loaded):
        for row in rows:
            model = reduced_copy(dense, BATConfig.from_dict(row.config or {}))
            with trace(model) as found:
                model(placed(image, dense))
            # of many sites the last shows what the others led to
            found.sites = found.sites[-1:] if len(found.sites) > 4 else found.sites
            picture = draw(from_tensor(image[0], settings["mean"], settings["std"]), found)
            strips.append((f"picture {i + 1}: {row.plan}", _png(picture)))
    return strips


def _png(picture: Image.Image) -> bytes:
    content = io.BytesIO()
    picture.save(content, "PNG")
    return content.getvalue()


def _show(study: Study) -> None:
    """A table for each target, narrow enough for a terminal; the report has everything."""
    for target, at in dict.fromkeys((row.target, row.at) for row in study.rows if row.target is not None):
        options.say(f"at {target:g} of the {'MACs' if at == 'macs' else 'time'} of the dense model")
        table = options.table("", "top-1", "difference [95 %]", "same", "KL", "GMACs", "speed", "ms alone")
        for row in study.rows:
            if row.plan == "dense" or (row.target, row.at) == (target, at):
                table.add_row(*_cells(row))
        options.console.print(table)
    for one in study.failed:
        options.say(f"{one['plan']} at {one['target']:g} of the {one['at']}: {one['reason']}")


def _cells(row: Row) -> tuple[str, ...]:
    known: dict[str, Any] = asdict(row)
    interval = (
        "" if row.plan == "dense" else "{difference:+.1f} [{difference_low:+.1f}, {difference_high:+.1f}]".format(**known)
    )
    numbers = ("{top1:.1f}", interval, "{agreement:.1f}", "{kl:.3f}", "{gmacs:.3f}", "{speedup:.2f}", "{latency_ms:.1f}")
    return (row.plan, *(text.format(**known) for text in numbers))


def _plans(text: str) -> list[str]:
    names = [name.strip() for name in text.split(",")]
    unknown = next((name for name in names if name not in CONTENDERS), None)
    if unknown is not None:
        raise argparse.ArgumentTypeError(f"unknown plan {unknown!r}; there are {', '.join(CONTENDERS)}")
    return list(dict.fromkeys(names))


def _targets(text: str) -> list[float]:
    try:
        shares = [float(part) for part in text.split(",")]
    except ValueError:
        raise argparse.ArgumentTypeError(f"expected numbers with commas, got {text!r}") from None
    if not all(0 < share < 1 for share in shares):
        raise argparse.ArgumentTypeError(f"targets are shares of the dense model's cost, in (0, 1), got {text}")
    return sorted(set(shares), reverse=True)
