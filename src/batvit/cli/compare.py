"""Compare reductions: every plan at the same MACs and the same time, on the same pictures."""

import argparse
import io
import shlex
import sys
from dataclasses import asdict, replace
from datetime import UTC, datetime
from typing import Any

import torch
from PIL import Image
from rich.progress import Progress
from torch import Tensor, nn

from batvit.backbones.patch import reduced_copy
from batvit.budget import contenders
from batvit.cli import console, load_models, options
from batvit.compare.plot import plot_pareto
from batvit.compare.report import html
from batvit.compare.results import COSTS, Row, Study, as_result, flat
from batvit.compare.scores import DENSE, collect_errors
from batvit.compare.steps import Clock, fit_plans, time_plans, watch_plans
from batvit.config.config import BATConfig
from batvit.data.folder import Pictures
from batvit.data.loading import data_config, loader, placed
from batvit.inspection.drawing import draw, from_tensor
from batvit.inspection.tracing import trace
from batvit.measure.speed import as_csv
from batvit.storage import provenance
from batvit.storage.figures import save
from batvit.storage.files import check_folder, write_atomic
from batvit.storage.provenance import git_commit, versions
from batvit.storage.run_folder import claimed

TARGETS = [0.65, 0.5]
REPORT, TABLE, RESULT, PLOT = "report.html", "table.csv", "result.json", "pareto.png"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Model, pictures, plans, targets and output."""
    options.add_model(parser)
    options.add_data(parser)
    plans = f"with commas; by default all: {','.join(contenders())}"
    parser.add_argument(
        "--plans", type=_plans, default=list(contenders()), metavar="NAME,…", help=plans
    )
    targets = f"shares of the dense model's MACs, and of its time, with commas ({','.join(map(str, TARGETS))})"
    parser.add_argument(
        "--targets", type=_targets, default=TARGETS, metavar="SHARE,…", help=targets
    )
    parser.add_argument(
        "--samples",
        type=options.at_least(1),
        metavar="N",
        help="pictures, taken evenly; all by default",
    )
    parser.add_argument(
        "--rounds",
        type=options.at_least(1),
        default=15,
        metavar="N",
        help="measurements of each model (15)",
    )
    parser.add_argument(
        "--drawn",
        type=options.at_least(0),
        default=2,
        metavar="N",
        help="pictures whose groups are drawn (2)",
    )
    parser.add_argument(
        "-o",
        "--output",
        required=True,
        metavar="DIR",
        help=f"a new folder for {REPORT}, {TABLE}, {RESULT}",
    )
    parser.add_argument(
        "--resume", action="store_true", help="go on with the comparison in the output folder"
    )
    options.add_device(parser)


def run(args: argparse.Namespace) -> None:
    """Fit, watch, report."""
    folder = check_folder(args.output)
    options.check_outputs(args.json, keep=load_models.inputs(args))
    console.silence_profiler()
    load_models.check_inputs(args)
    dense = load_models.load_dense(args, pretrained=True)
    pictures = load_models.pictures(args, dense)
    pictures.samples = options.evenly(pictures.samples, args.samples)
    with claimed(folder):
        study = Study.open(folder, _about(args, dense), resume=args.resume)
        _compare(args, study, dense, pictures)
        _write(args, study, dense, pictures)


def _compare(args: argparse.Namespace, study: Study, dense: nn.Module, pictures: Pictures) -> None:
    """Fit every plan and time it, then show all of them the pictures."""
    clock = Clock(dense, load_models.noise(dense, args.batch_size), args.rounds)
    with Progress(console=console.stderr, transient=True) as bar:
        task = bar.add_task("", total=None)

        def told(text: str) -> None:
            bar.update(task, description=text)

        def batches(start: int) -> Any:
            left = replace(pictures, samples=pictures.samples[start:])
            return loader(left, dense, batch_size=args.batch_size, workers=args.workers)

        fit_plans(study, clock, plans=args.plans, targets=args.targets, progress=told)
        time_plans(study, clock, progress=told)
        study.check_any()
        bar.update(task, description="pictures", total=len(pictures))
        watch_plans(
            *(study, dense, batches),
            samples=options.stamped(pictures),
            weights=options.weights(args),
            progress=lambda seen: bar.update(task, completed=seen),
        )
        study.check_any()


def _about(args: argparse.Namespace, dense: nn.Module) -> dict[str, Any]:
    """What must stay the same when a comparison goes on; plans, targets and pictures may be added or left out."""
    names = (
        "model",
        "checkpoint",
        "data",
        "class_map",
        "precision",
        "device",
        "batch_size",
        "rounds",
    )
    size = data_config(dense)["input_size"][1:]
    settings = {name: getattr(args, name) for name in names} | {
        "img_size": list(size),
        "commit": git_commit(),
    }
    return settings | provenance.machine(args.device)


def _write(args: argparse.Namespace, study: Study, dense: nn.Module, pictures: Pictures) -> None:
    command = shlex.join(["batvit", *sys.argv[1:]])
    about = {"samples": len(pictures), "command": command, "environment": _environment(study.about)}
    result = as_result(study, about)
    folder = study.folder
    save(plot_pareto(result["rows"], result[DENSE]), folder / PLOT)
    write_atomic(folder / TABLE, as_csv([flat(row) for row in (result[DENSE], *result["rows"])]))
    options.write_json(folder / RESULT, result)
    options.write_json(args.json, result)
    drawn = _drawn(study, dense, pictures, args.drawn)
    write_atomic(folder / REPORT, html(result, plot=(folder / PLOT).read_bytes(), pictures=drawn))
    _show(study)
    console.say(f"wrote {folder / REPORT}, {folder / TABLE}, {folder / RESULT}, {folder / PLOT}")


def _environment(about: dict[str, Any]) -> dict[str, Any]:
    found = versions()
    return {
        **{name: about[name] for name in ("cpu", "gpu", "torch", "threads", "commit")},
        **{name: found[name] for name in ("python", "timm", "batvit")},
        "date": datetime.now(UTC).date().isoformat(),
    }


@torch.inference_mode()
def _drawn(
    study: Study, dense: nn.Module, pictures: Pictures, number: int
) -> list[tuple[str, bytes]]:
    """The groups of each plan at equal MACs, at the smallest target that any met, for some pictures, as PNG."""
    rows = [row for row in study.rows if row.at == "macs"]
    rows = [row for row in rows if row.target == min(each.target or 1 for each in rows)]
    loaded = [
        image
        for _, (image, _) in zip(range(number), loader(pictures, dense, batch_size=1), strict=False)
    ]
    strips, failed = [], dict[str, Exception]()
    for i, image in enumerate(loaded):
        for row in rows:
            title = f"picture {i + 1}: {row.plan}"
            with collect_errors(failed, title):
                strips.append((title, _png(_groups(dense, row, image))))
    for title, error in failed.items():
        console.note(f"{title} is not drawn: {error}")
    return strips


def _groups(dense: nn.Module, row: Row, image: Tensor) -> Image.Image:
    """What one plan makes of one picture (1, 3, H, W)."""
    settings, model = data_config(dense), reduced_copy(dense, BATConfig.from_dict(row.config or {}))
    with trace(model) as found:
        model(placed(image, dense))
    # of many sites the last shows what the others led to
    found.sites = found.sites[-1:] if len(found.sites) > 4 else found.sites
    return draw(from_tensor(image[0], settings["mean"], settings["std"]), found)


def _png(picture: Image.Image) -> bytes:
    content = io.BytesIO()
    picture.save(content, "PNG")
    return content.getvalue()


def _show(study: Study) -> None:
    """A table for each target, narrow enough for a terminal; the report has everything."""
    dense = study.dense
    for group in dict.fromkeys(row.group for row in study.rows):
        console.say(f"at {group[0]:g} of the {COSTS[str(group[1])]} of the dense model")
        table = console.table(
            "", "top-1", "difference [95 %]", "same", "KL", "GMACs", "speed", "ms alone"
        )
        rows = [row for row in study.rows if row.group == group]
        for row in (dense, *rows):
            table.add_row(*_cells(row))
        console.stdout.print(table)
        if off := ", ".join(
            f"{row.plan} takes {1 / row.speedup:.3f}"
            for row in rows
            if row.off_target and row.speedup
        ):
            console.say(f"* off target, not to be ranked: {off}")
    for one in study.failed:
        console.say(
            f"{one['plan']} at {one['target']:g} of the {COSTS[one['at']]}: {one['reason']}"
        )


def _cells(row: Row) -> tuple[str, ...]:
    known: dict[str, Any] = asdict(row)
    interval = (
        ""
        if row.plan == DENSE
        else "{difference:+.1f} [{difference_low:+.1f}, {difference_high:+.1f}]".format(**known)
    )
    numbers = (
        "{top1:.1f}",
        interval,
        "{agreement:.1f}",
        "{kl:.3f}",
        "{gmacs:.3f}",
        "{speedup:.2f}",
        "{latency_ms:.1f}",
    )
    return (row.plan + "*" * row.off_target, *(text.format(**known) for text in numbers))


def _plans(text: str) -> list[str]:
    names = [name.strip() for name in text.split(",")]
    unknown = next((name for name in names if name not in contenders()), None)
    if unknown is not None:
        raise argparse.ArgumentTypeError(
            f"unknown plan {unknown!r}; there are {', '.join(contenders())}"
        )
    return list(dict.fromkeys(names))


def _targets(text: str) -> list[float]:
    try:
        shares = [float(part) for part in text.split(",")]
    except ValueError:
        raise argparse.ArgumentTypeError(f"expected numbers with commas, got {text!r}") from None
    if not all(0 < share < 1 for share in shares):
        raise argparse.ArgumentTypeError(
            f"targets are shares of the dense model's cost, in (0, 1), got {text}"
        )
    return sorted(set(shares), reverse=True)
