"""Accuracy without any training: dense, BAT (training-free and paper), and top-k pruning.

All see the same pictures in one pass.

python benchmarks/accuracy.py deit_tiny_patch16_224 --checkpoint deit_tiny_patch16_224.safetensors \
    --data nips2017 --class-map class_map.txt --threads 2
"""

import argparse
import copy
from dataclasses import asdict

import torch
from rich.progress import track

import batvit
from batvit.data.folder import image_folder
from batvit.data.loading import loader
from batvit.measure.accuracy import evaluate
from batvit.models.create import create_model
from results import show

ROWS = {
    "BAT, training-free": {"mode": "training-free"},
    "BAT, paper": {"mode": "paper"},
    "top-k pruning": {"mode": "paper", "method": "topk"},
}


def main() -> None:
    """Print a Markdown table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model")
    parser.add_argument("--checkpoint", help="weights; timm's own otherwise")
    parser.add_argument("--data", required=True)
    parser.add_argument("--class-map")
    parser.add_argument("--keep-rates", type=float, nargs="+", default=[0.7, 0.5])
    parser.add_argument("--batch-size", type=int, default=50)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--json", help="also write the rows here")
    parser.add_argument("--record", action="store_true", help="keep the rows in docs/results")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    dense = create_model(args.model, checkpoint=args.checkpoint, pretrained=True).eval()
    models = {"dense": dense}
    for keep_rate in args.keep_rates:
        for name, fields in ROWS.items():
            models[f"{name}, keep {keep_rate}"] = batvit.patch(
                copy.deepcopy(dense), keep_rate=keep_rate, **fields
            )
    pictures = image_folder(args.data, class_map=args.class_map, num_classes=dense.num_classes)
    found = evaluate(
        models, track(loader(pictures, dense, batch_size=args.batch_size), "evaluating")
    )
    macs = {name: batvit.info(model).macs for name, model in models.items()}
    rows = []
    for name, result in found.items():
        row = {"model": name, "gmacs": macs[name] / 1e9}
        row["saved"] = round(100 * (macs[name] / macs["dense"] - 1))
        row |= asdict(result)
        row["difference"] = result.top1 - found["dense"].top1
        rows.append(row)
    print(f"{args.model}, {len(pictures)} pictures, fp32\n")
    show("accuracy", rows, keep=args.record, path=args.json)


if __name__ == "__main__":
    main()
