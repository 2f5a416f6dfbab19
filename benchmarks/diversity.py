r"""The paper's analysis: diversity of the tokens through the blocks.

python benchmarks/diversity.py deit_tiny_patch16_224 --data nips2017 --keep-rate 0.5 --threads 2 \
    --checkpoint deit_tiny_patch16_224.safetensors -o diversity.png

It compares the dense model, importance alone, and BAT. r(X) is a sum over the patches that are
left: where tokens are dropped, part of its fall is that they are fewer. A second panel shows the
same after fine-tuning, of the checkpoints that --tuned-dense, --tuned-topk and --tuned-bat name.
"""

import argparse
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from rich.progress import track
from torch import nn
from torch.utils.data import DataLoader

import batvit
from batvit.data.folder import Pictures, image_folder
from batvit.data.loading import loader, placed
from batvit.models.create import create_model
from batvit.storage.figures import CURVE_COLOURS, CURVE_MARKERS, FIGURE_FORMATS, save
from batvit.storage.files import check_writable, write_atomic

LABELS = {"dense": "dense", "topk": "importance only", "bat": "BAT"}
"""how each method is called; all but dense are those of a BATConfig"""
BEFORE = "before fine-tuning"
AFTER = "after fine-tuning"

Panels = Mapping[str, Mapping[str, nn.Module]]
"""panel to method to model"""
Curves = Mapping[str, Mapping[str, list[float]]]
"""panel to method to r(X) after each block"""


def load(args: argparse.Namespace) -> Panels:
    """Make the models of each panel; without fine-tuned weights there is one panel."""
    size = None if args.img_size is None else (args.img_size, args.img_size)
    before: dict[str, nn.Module] = {}
    after: dict[str, nn.Module] = {}
    for method in LABELS:
        tuned = getattr(args, f"tuned_{method}")
        config = configuration(method, args.keep_rate, tuned)
        model = create_model(
            args.model, checkpoint=args.checkpoint, pretrained=True, image_size=size
        )
        before[method] = reduced(model.to(args.device), config)
        if tuned is not None:
            model = create_model(
                args.model, checkpoint=tuned, num_classes=args.num_classes, image_size=size
            )
            after[method] = reduced(model.to(args.device), config)
    return {BEFORE: before, AFTER: after} if after else {BEFORE: before}


def configuration(method: str, keep_rate: float, tuned: str | None) -> batvit.BATConfig | None:
    """Return what was fine-tuned, so that both panels show it, or the paper's; None for dense."""
    saved = None if tuned is None else batvit.BATConfig.beside(tuned)
    if saved is not None:
        return saved
    if method == "dense":
        return None
    return batvit.BATConfig.preset("paper", keep_rate=keep_rate, method=method)


def reduced(model: nn.Module, config: batvit.BATConfig | None) -> nn.Module:
    """Patch a model, if there is a configuration."""
    return model if config is None else batvit.patch(model, config)


def measure(panels: Panels, batches: "DataLoader[tuple[torch.Tensor, torch.Tensor]]") -> Curves:
    """Measure r(X) after each block, averaged over the pictures."""
    sums: dict[tuple[str, str], torch.Tensor] = {}
    samples = 0
    for images, _ in track(batches, "measuring"):
        samples += len(images)
        for panel, models in panels.items():
            for method, model in models.items():
                values = batvit.diversity_by_block(model.eval(), placed(images, model))
                total = torch.tensor(values, dtype=torch.float64) * len(images)
                sums[panel, method] = sums.get((panel, method), 0) + total
    curves: dict[str, dict[str, list[float]]] = {panel: {} for panel in panels}
    for (panel, method), total in sums.items():
        curves[panel][method] = (total / samples).tolist()
    return curves


def plot(curves: Curves) -> Figure:
    """Draw one panel beside the other, with one scale."""
    figure = Figure(figsize=(0.8 + 4.4 * len(curves), 4.2), dpi=150, layout="constrained")
    row = figure.subplots(1, len(curves), sharey=True, squeeze=False)[0]
    for axes, (panel, by_method) in zip(row, curves.items(), strict=True):
        for i, method in enumerate(LABELS):
            if method not in by_method:
                continue
            axes.plot(
                range(len(by_method[method])),
                by_method[method],
                color=CURVE_COLOURS[i],
                marker=CURVE_MARKERS[i],
                markersize=5,
                linewidth=1.8,
                label=LABELS[method],
            )
        axes.set(title=panel, xlabel="block (from 0)")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.grid(alpha=0.3)
    row[0].set(ylabel="diversity r(X)", ylim=(0, None))
    # before fine-tuning every method is there
    figure.legend(handles=row[0].lines, loc="outside upper center", ncols=len(LABELS))
    return figure


def print_table(curves: Curves) -> None:
    """Print a Markdown table, one row a method and panel."""
    blocks = range(len(curves[BEFORE]["dense"]))
    print(f"| | | {' | '.join(str(block) for block in blocks)} |")
    print(f"|---|---|{'---|' * len(blocks)}")
    for panel, by_method in curves.items():
        for method, values in by_method.items():
            cells = " | ".join(f"{value:.1f}" for value in values)
            print(f"| {panel} | {LABELS[method]} | {cells} |")


def spread(pictures: Pictures, number: int) -> None:
    """Leave so many pictures, at equal distances: a class lies beside the other."""
    number = min(number, len(pictures))
    samples = pictures.samples
    pictures.samples = [samples[i * len(samples) // number] for i in range(number)]


def configs_of(models: Mapping[str, nn.Module]) -> dict[str, dict[str, Any]]:
    """Return the configuration of every model that has one, and print it."""
    configs = {}
    for method, model in models.items():
        config = batvit.config_of(model)
        if config is not None:
            configs[method] = config.to_dict()
            tokens = f"keep {config.keep_rate}"
            if config.tokens is not None:
                tokens = f"{config.tokens} tokens"
            print(f"{LABELS[method]}: {config.method}, {tokens}")
    return configs


def parsed() -> argparse.Namespace:
    """Return the options, refused before anything is loaded if a file cannot be written."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("model")
    add("--checkpoint", help="weights before fine-tuning; timm's own otherwise")
    for method, label in LABELS.items():
        add(f"--tuned-{method}", metavar="FILE", help=f"weights fine-tuned so: {label}")
    add("--img-size", type=int, help="height and width, if not the model's own")
    add("--num-classes", type=int, help="of the fine-tuned weights, if not the model's own")
    add("--data", required=True, help="a folder with one sub-folder of pictures a class")
    add("--pictures", type=int, default=1000, help="how many at most, spread over the folder")
    add("--keep-rate", type=float, default=0.5)
    add("--batch-size", type=int, default=50)
    add("--threads", type=int, default=torch.get_num_threads())
    add("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    add("-o", "--output", default="diversity.png")
    add("--json")
    args = parser.parse_args()
    if Path(args.output).suffix.lower() not in FIGURE_FORMATS:
        parser.error(
            f"--output {args.output}: the suffix must be one of {', '.join(FIGURE_FORMATS)}"
        )
    if args.pictures < 1:
        parser.error(f"--pictures must be 1 or more, got {args.pictures}")
    check_writable(args.output)
    if args.json:
        check_writable(args.json)
    return args


def main() -> None:
    """Print a Markdown table, and write the figure."""
    args = parsed()
    torch.set_num_threads(args.threads)
    panels = load(args)
    pictures = image_folder(args.data)
    spread(pictures, args.pictures)
    batches = loader(pictures, panels[BEFORE]["dense"], batch_size=args.batch_size)
    curves = measure(panels, batches)
    print(f"{args.model}, {len(pictures)} pictures, fp32; r(X) after each block")
    configs = configs_of(panels[BEFORE])
    print()
    print_table(curves)
    save(plot(curves), args.output)
    if args.json:
        result = {
            "model": args.model,
            "configs": configs,
            "pictures": len(pictures),
            "diversity": curves,
        }
        write_atomic(args.json, json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
