r"""Time of one training step on noise, dense and reduced in turns: forward, backward, optimizer.

python benchmarks/train_step.py deit_tiny_patch16_224 --keep-rate 0.7 --batch-size 64 \\
    --precisions bf16 fp32 --threads 2
"""

import argparse
from collections.abc import Callable
from typing import Any

import timm
import torch
from torch import nn
from torch.nn.functional import cross_entropy

import batvit
from batvit.measure.clock import in_turns, quartiles, speedup
from results import show


def step(
    model: nn.Module, images: torch.Tensor, labels: torch.Tensor, precision: str
) -> Callable[[], None]:
    """One step of AdamW, as a function without arguments."""
    optimizer = torch.optim.AdamW(model.train().parameters(), lr=1e-5)

    def run() -> None:
        with torch.autocast(images.device.type, torch.bfloat16, enabled=precision == "bf16"):
            loss = cross_entropy(model(images).float(), labels)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()

    return run


def main() -> None:
    """Print a Markdown table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model")
    parser.add_argument("--keep-rate", type=float, default=0.7)
    parser.add_argument("--mode", default="paper")
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--precisions", nargs="+", choices=("fp32", "bf16"), default=["bf16"])
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--record", action="store_true", help="keep the rows in docs/results")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    rows = [measure(args, precision) for precision in args.precisions]
    ratio = rows[0]["mac_ratio"]
    print(
        f"{args.model}, {args.mode}, keep {args.keep_rate}, batch {args.batch_size}, "
        f"{args.device}: MAC ratio {ratio:.2f}\n"
    )
    show("training_step", rows, keep=args.record)


def measure(args: argparse.Namespace, precision: str) -> dict[str, Any]:
    """Return the quartiles of both models in one precision, in milliseconds."""
    torch.manual_seed(0)
    dense, reduced = (timm.create_model(args.model).to(args.device) for _ in range(2))
    batvit.patch(reduced, mode=args.mode, keep_rate=args.keep_rate)
    size = dense.patch_embed.img_size
    images = torch.randn(args.batch_size, 3, *size, device=args.device)
    labels = torch.randint(dense.num_classes, (args.batch_size,), device=args.device)
    runs = [step(model, images, labels, precision) for model in (dense, reduced)]
    slow, fast = in_turns(runs, images, rounds=args.rounds, warmup=2)
    row: dict[str, Any] = {"precision": precision, "mac_ratio": batvit.info(reduced).mac_ratio}
    for name, times in (("dense", slow), ("reduced", fast)):
        found = quartiles(times)
        row |= {f"{name}_low": found[0], f"{name}_ms": found[1], f"{name}_high": found[2]}
    row["speedup"] = speedup(slow, fast).median
    return row


if __name__ == "__main__":
    main()
