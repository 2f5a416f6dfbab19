"""What each choice in the presets for a pretrained model is worth: the KL divergence to the dense model without it.

python benchmarks/presets.py deit_tiny_patch16_224 --checkpoint deit_tiny_patch16_224.safetensors \
    --data tiny_imagenet/train --samples 400 --threads 2

Every row is brought to the same share of the dense model's MACs. Pictures need no labels.
"""

import argparse
from dataclasses import dataclass, field
from typing import Any

import torch
from rich.progress import track

from batvit.backbones.patch import reduced_copy
from batvit.budget import Family, at_macs
from batvit.config.config import BATConfig
from batvit.data.folder import unlabelled
from batvit.data.loading import loader
from batvit.models.create import create_model
from batvit.tune.objective import TuningSet, judge

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
        """As the preset's."""
        return super().at(keep).with_fields(**self.fields)


def otherwise(family: Family, fields: dict[str, Any]) -> Otherwise:
    """A family with some fields set otherwise."""
    return Otherwise(**vars(family), fields=fields)


def main() -> None:
    """Print a Markdown table."""
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
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    dense = create_model(args.model, checkpoint=args.checkpoint, pretrained=True).eval()
    pictures = unlabelled(args.data)
    pictures.samples = pictures.samples[:: max(1, len(pictures) // args.samples)][: args.samples]
    data = TuningSet.of(
        dense, list(loader(pictures, dense, batch_size=args.batch_size)), labelled=False
    )
    kinds = [(name, target) for name in ("bat", "bat_gradual") for target in args.targets]
    rows: dict[str, list[float]] = {what: [] for what in OTHERWISE}
    for name, target in track(kinds, "judging"):
        family = Family.of(name, dense)
        for what, fields in OTHERWISE.items():
            config = at_macs(dense, otherwise(family, fields), target)
            rows[what].append(judge(reduced_copy(dense, config), data).loss)
    print(f"{args.model}, {len(pictures)} pictures, fp32: KL divergence to the dense model\n")
    print("| | " + " | ".join(f"{name}, {target:.0%} of the MACs" for name, target in kinds) + " |")
    print("|---|" + "---|" * len(kinds))
    for what, losses in rows.items():
        print(f"| {what} | " + " | ".join(f"{loss:.3f}" for loss in losses) + " |")


if __name__ == "__main__":
    main()
