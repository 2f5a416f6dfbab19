"""What each choice in the presets for a pretrained model is worth.

python benchmarks/presets.py deit_tiny_patch16_224 --checkpoint deit_tiny_patch16_224.safetensors \
    --data tiny_imagenet/train --samples 400 --threads 2

A row has the KL divergence to the dense model with one choice made otherwise, brought to the same
share of the dense model's MACs. Pictures need no labels.
"""

import argparse
from dataclasses import dataclass, field
from itertools import product
from typing import Any

import torch
from rich.progress import track

from batvit.backbones.patch import reduced_copy
from batvit.budget import Family, at_macs
from batvit.config import BATConfig
from batvit.data.folder import unlabelled
from batvit.data.loading import loader
from batvit.models.create import create_model
from batvit.tune.objective import TuningSet, score
from results import show

OTHERWISE: dict[str, dict[str, Any]] = {
    "as it is": {},
    "all tokens through the last MLP": {"prefix_only": False},
    "sizes count in full (`size_power=1.0`)": {"size_power": 1.0},
    "sizes do not count": {"size_aware": False},
    "groups weighted by importance times size": {"weight": "importance_size"},
    "groups weighted by size": {"weight": "size"},
    "lengths not kept": {"keep_norm": False},
    "centres chosen without importance": {"importance_power": 0.0},
    "centres chosen with it to the power 0.25": {"importance_power": 0.25},
    "density over all tokens": {"neighbours": None},
    "a third of the tokens clusters": {"centres": 0.33},
    "a tenth of the attentive in pairs": {"pairs": 0.1},
    "blocks 2 to 7": {"blocks": tuple(range(2, 8))},
    "blocks 3 to 8": {"blocks": tuple(range(3, 9))},
    "all tokens clusters": {"centres": 1.0},
}


@dataclass(frozen=True)
class Otherwise(Family):
    """A preset's family with some fields set otherwise."""

    fields: dict[str, Any] = field(default_factory=dict)

    def at(self, keep: float) -> BATConfig:
        """Return the preset's configuration with these fields."""
        return super().at(keep).with_fields(**self.fields)


def otherwise(family: Family, fields: dict[str, Any]) -> Otherwise:
    """Return a family with some fields set otherwise."""
    return Otherwise(**vars(family), fields=fields)


def main() -> None:
    """Print a Markdown table."""
    args = _parser().parse_args()
    torch.set_num_threads(args.threads)
    dense = create_model(args.model, checkpoint=args.checkpoint, pretrained=True).eval()
    pictures = unlabelled(args.data)
    # evenly spaced, so that all folders take part
    step = max(1, len(pictures) // args.samples)
    pictures.samples = pictures.samples[::step][: args.samples]
    batches = loader(pictures, dense, batch_size=args.batch_size)
    data = TuningSet.of(dense, list(batches), labelled=False)

    columns = list(product(("bat", "bat_gradual"), args.targets))
    rows: dict[str, list[float]] = {what: [] for what in OTHERWISE}
    for name, target in track(columns, "scoring"):
        family = Family.of(name, dense)
        for what, fields in OTHERWISE.items():
            config = at_macs(dense, otherwise(family, fields), target)
            rows[what].append(score(reduced_copy(dense, config), data).loss)

    print(f"{args.model}, {len(pictures)} pictures, fp32: KL divergence to the dense model\n")
    headings = {"": "{what}"}
    for name, target in columns:
        heading = f"{name}, {target:.0%} of the MACs"
        headings[heading] = f"{{{heading}:.3f}}"
    lines = []
    for what, losses in rows.items():
        lines.append({"what": what} | dict(zip(list(headings)[1:], losses, strict=True)))
    show("presets", lines, columns=headings, keep=args.record)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model")
    parser.add_argument("--checkpoint", help="weights; timm's own otherwise")
    parser.add_argument("--data", required=True)
    parser.add_argument(
        "--samples", type=int, default=400, help="pictures, evenly spaced in the folder"
    )
    parser.add_argument(
        "--targets",
        type=float,
        nargs="+",
        default=[0.65, 0.5],
        help="shares of the dense model's MACs",
    )
    parser.add_argument("--batch-size", type=int, default=50)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--record", action="store_true", help="keep the rows in docs/results")
    return parser


if __name__ == "__main__":
    main()
