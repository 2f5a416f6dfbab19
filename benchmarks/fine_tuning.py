"""What runs of ``batvit train`` came to, on the same pictures: accuracy, and how it differs.

python benchmarks/fine_tuning.py dense=RUN bat=RUN topk=RUN --data DIR/val --threads 2

Differences are to the first run. The weights are those after the last epoch, so none was chosen by
these pictures. Intervals hold 95 % of 10,000 paired bootstraps over pictures: they say how far
other pictures would change a difference, not how far another seed would.
"""

import argparse
from pathlib import Path
from typing import Any

import torch
from rich.progress import track
from torch import nn

import batvit
from batvit.data.folder import image_folder
from batvit.data.loading import loader, placed
from batvit.measure.accuracy import paired_interval
from batvit.models.create import create_model
from batvit.storage.files import read_json
from results import show


def load(run: Path, device: str) -> tuple[nn.Module, dict[str, Any]]:
    """The model as it is after the last epoch, and what its log says of speed."""
    metadata = read_json(run / "run.json")
    weights = run / "last.safetensors"
    size = metadata.get("img_size")
    model = create_model(
        metadata["model"],
        checkpoint=weights,
        num_classes=metadata["classes"],
        image_size=None if size is None else (size[0], size[-1]),
    )
    config = batvit.BATConfig.beside(weights)
    if config is not None:
        batvit.patch(model, config)
    epochs = [
        line
        for line in map(json.loads, (run / "log.jsonl").read_text().splitlines())
        if "top1" in line
    ]
    pictures = sum(epoch["seconds"] * epoch["samples_per_sec"] for epoch in epochs)
    # that of the epoch which other work on the machine held up least
    speed = max(epoch["samples_per_sec"] for epoch in epochs)
    hours = pictures / speed / 3600
    speeds = {
        "hours": hours,
        "samples_per_sec": speed,
        "epochs": len(epochs),
        "commit": metadata["git_commit"],
    }
    return model.to(device).eval(), speeds


@torch.inference_mode()
def right(
    models: dict[str, nn.Module], data: str, batch_size: int, workers: int
) -> dict[str, torch.Tensor]:
    """Of each model, which pictures it names right: 0 or 100 each."""
    first = next(iter(models.values()))
    pictures = image_folder(data, num_classes=first.num_classes)
    found: dict[str, list[torch.Tensor]] = {name: [] for name in models}
    for images, labels in track(
        loader(pictures, first, batch_size=batch_size, workers=workers), "evaluating"
    ):
        for name, model in models.items():
            found[name].append(model(placed(images, model)).argmax(dim=1).cpu() == labels)
    return {name: 100 * torch.cat(parts).double() for name, parts in found.items()}


def main() -> None:
    """Print a Markdown table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "runs",
        nargs="+",
        metavar="NAME=RUN",
        help="folders of batvit train; the first is compared with",
    )
    parser.add_argument("--data", required=True)
    parser.add_argument("--batch-size", type=int, default=100)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--workers", type=int, default=0, help="processes that read pictures")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--record", action="store_true", help="keep the rows in docs/results")
    parser.add_argument("--table", default="fine_tuned_160", help="name in docs/results")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    loaded = {
        name: load(Path(path), args.device)
        for name, _, path in (run.partition("=") for run in args.runs)
    }
    hits = right(
        {name: model for name, (model, _) in loaded.items()},
        args.data,
        args.batch_size,
        args.workers,
    )
    base = hits[next(iter(hits))]
    rows = []
    for name, (model, metadata) in loaded.items():
        cost = batvit.info(model)
        top1 = float(hits[name].mean())
        low, high = paired_interval(hits[name])
        row = {"model": name, "gmacs": cost.macs / 1e9} | metadata
        row |= {"top1": top1, "top1_low": low, "top1_high": high}
        if rows:
            low, high = paired_interval(hits[name] - base)
            row |= {"difference": top1 - float(base.mean()), "low": low, "high": high}
        rows.append(row)
    show(args.table, rows, keep=args.record)


if __name__ == "__main__":
    main()
