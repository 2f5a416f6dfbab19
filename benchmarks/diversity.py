r"""The paper's analysis: diversity of the tokens through the blocks, dense, with importance alone, and with BAT.

python benchmarks/diversity.py deit_tiny_patch16_224 --checkpoint deit_tiny_patch16_224.safetensors \
    --data nips2017 --keep-rate 0.5 --threads 2 -o diversity.png

r(X) is a sum over the patches that are left: where tokens are dropped, part of its fall is that they are fewer.
A second panel shows the same after fine-tuning, of the checkpoints that --tuned-dense, --tuned-topk and --tuned-bat name.
"""

import argparse
import json
from pathlib import Path

import torch
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from rich.progress import track
from torch import nn
from torch.utils.data import DataLoader

import batvit
from batvit.data.folder import image_folder
from batvit.data.loading import loader, placed
from batvit.models.create import create_model
from batvit.storage.figures import CURVE_COLOURS, CURVE_MARKERS, FIGURE_FORMATS, save
from batvit.storage.files import check_writable, write_atomic

METHODS = {"dense": None, "topk": "topk", "bat": "bat"}
LABELS = {"dense": "dense", "topk": "importance only", "bat": "BAT"}
BEFORE, AFTER = "before fine-tuning", "after fine-tuning"


def load(args: argparse.Namespace) -> dict[str, dict[str, nn.Module]]:
    """Panel to method to model."""
    panels: dict[str, dict[str, nn.Module]] = {BEFORE: {}, AFTER: {}}
    for name, method in METHODS.items():
        tuned = getattr(args, f"tuned_{name}")
        config = (
            None
            if method is None
            else batvit.BATConfig.preset("paper", keep_rate=args.keep_rate, method=method)
        )
        if tuned is not None and (saved := batvit.BATConfig.beside(tuned)) is not None:
            # both panels show what was tuned
            config = saved
        size = None if args.img_size is None else (args.img_size, args.img_size)
        before = create_model(
            args.model, checkpoint=args.checkpoint, pretrained=True, image_size=size
        ).to(args.device)
        panels[BEFORE][name] = before if config is None else batvit.patch(before, config)
        if tuned is not None:
            after = create_model(
                args.model, checkpoint=tuned, num_classes=args.num_classes, image_size=size
            ).to(args.device)
            panels[AFTER][name] = after if config is None else batvit.patch(after, config)
    return {panel: models for panel, models in panels.items() if models}


def measure(
    panels: dict[str, dict[str, nn.Module]],
    batches: "DataLoader[tuple[torch.Tensor, torch.Tensor]]",
) -> dict[str, dict[str, list[float]]]:
    """Panel to method to r(X) after each block, averaged over the pictures."""
    sums: dict[tuple[str, str], torch.Tensor] = {}
    samples = 0
    for images, _ in track(batches, "measuring"):
        samples += len(images)
        for panel, models in panels.items():
            for name, model in models.items():
                blocks = batvit.diversity_by_block(model.eval(), placed(images, model))
                found = torch.tensor(blocks, dtype=torch.float64)
                sums[panel, name] = sums.get((panel, name), 0) + found * len(images)
    return {
        panel: {name: (sums[panel, name] / samples).tolist() for name in panels[panel]}
        for panel in panels
    }


def plot(found: dict[str, dict[str, list[float]]]) -> Figure:
    """One panel beside the other, with one scale."""
    figure = Figure(figsize=(0.8 + 4.4 * len(found), 4.2), dpi=150, layout="constrained")
    row = figure.subplots(1, len(found), sharey=True, squeeze=False)[0]
    for axes, (panel, curves) in zip(row, found.items(), strict=True):
        for name, colour, marker in zip(METHODS, CURVE_COLOURS, CURVE_MARKERS, strict=False):
            if name in curves:
                style = {"color": colour, "marker": marker, "markersize": 5, "linewidth": 1.8}
                axes.plot(range(len(curves[name])), curves[name], **style, label=LABELS[name])
        axes.set(title=panel, xlabel="block (from 0)")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.grid(alpha=0.3)
    row[0].set(ylabel="diversity r(X)", ylim=(0, None))
    # before fine-tuning every method is there
    figure.legend(handles=row[0].lines, loc="outside upper center", ncols=len(METHODS))
    return figure


def main() -> None:
    """Print a Markdown table, and write the figure."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model")
    parser.add_argument("--checkpoint", help="weights before fine-tuning; timm's own otherwise")
    for name, label in LABELS.items():
        parser.add_argument(
            f"--tuned-{name}", metavar="FILE", help=f"weights fine-tuned so: {label}"
        )
    parser.add_argument("--img-size", type=int, help="height and width, if not the model's own")
    parser.add_argument(
        "--num-classes", type=int, help="of the fine-tuned weights, if not the model's own"
    )
    parser.add_argument(
        "--data", required=True, help="a folder with one sub-folder of pictures a class"
    )
    parser.add_argument(
        "--pictures",
        type=int,
        default=1000,
        help="how many, spread over the folder; all if it has fewer",
    )
    parser.add_argument("--keep-rate", type=float, default=0.5)
    parser.add_argument("--batch-size", type=int, default=50)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("-o", "--output", default="diversity.png")
    parser.add_argument("--json")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    if Path(args.output).suffix.lower() not in FIGURE_FORMATS:
        parser.error(
            f"--output {args.output}: the suffix must be one of {', '.join(FIGURE_FORMATS)}"
        )
    if args.pictures < 1:
        parser.error(f"--pictures must be 1 or more, got {args.pictures}")
    for path in filter(None, (args.output, args.json)):
        check_writable(path)
    panels = load(args)
    pictures = image_folder(args.data)
    # a class lies beside the other: the first N would be of few
    wanted = min(args.pictures, len(pictures))
    pictures.samples = [pictures.samples[i * len(pictures) // wanted] for i in range(wanted)]
    found = measure(panels, loader(pictures, panels[BEFORE]["dense"], batch_size=args.batch_size))
    print(f"{args.model}, {len(pictures)} pictures, fp32; r(X) after each block")
    configs = {
        name: config.to_dict()
        for name, model in panels[BEFORE].items()
        if (config := batvit.config_of(model))
    }
    for name, config in configs.items():
        share = (
            f"keep {config['keep_rate']}"
            if config["tokens"] is None
            else f"{config['tokens']} tokens"
        )
        print(f"{LABELS[name]}: {config['method']}, {share}")
    print()
    blocks = range(len(found[BEFORE]["dense"]))
    print(f"| | | {' | '.join(map(str, blocks))} |\n|---|---|{'---|' * len(blocks)}")
    for panel, curves in found.items():
        for name, values in curves.items():
            print(
                f"| {panel} | {LABELS[name]} | {' | '.join(f'{value:.1f}' for value in values)} |"
            )
    save(plot(found), args.output)
    if args.json:
        settings = {"model": args.model, "configs": configs, "pictures": len(pictures)}
        write_atomic(args.json, json.dumps(settings | {"diversity": found}, indent=2) + "\n")


if __name__ == "__main__":
    main()
