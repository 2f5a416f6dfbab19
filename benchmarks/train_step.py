r"""Time of one training step on noise, dense and reduced in turns: forward, backward, optimizer.

python benchmarks/train_step.py deit_tiny_patch16_224 --keep-rate 0.7 --batch-size 64 \\
    --precision bf16 --threads 2
"""

import argparse
import statistics
from collections.abc import Callable

import timm
import torch
from torch import nn
from torch.nn.functional import cross_entropy

import batvit
from batvit.measure.clock import in_turns, quartiles


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
    """Print one line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model")
    parser.add_argument("--keep-rate", type=float, default=0.7)
    parser.add_argument("--mode", default="paper")
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--precision", choices=("fp32", "bf16"), default="bf16")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--rounds", type=int, default=15)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    dense, reduced = (timm.create_model(args.model).to(args.device) for _ in range(2))
    batvit.patch(reduced, mode=args.mode, keep_rate=args.keep_rate)
    size = dense.patch_embed.img_size
    images = torch.randn(args.batch_size, 3, *size, device=args.device)
    labels = torch.randint(dense.num_classes, (args.batch_size,), device=args.device)
    runs = [step(model, images, labels, args.precision) for model in (dense, reduced)]
    times = in_turns(runs, images, rounds=args.rounds, warmup=2)
    slow, fast = (quartiles(each) for each in times)
    ratio = statistics.median(slow) / statistics.median(fast)
    print(
        f"{args.model}, {args.mode}, keep {args.keep_rate}, batch {args.batch_size}, "
        f"{args.precision}, {args.device}: "
        f"dense {slow[1]:.0f} ms ({slow[0]:.0f} .. {slow[2]:.0f}), "
        f"reduced {fast[1]:.0f} ms ({fast[0]:.0f} .. {fast[2]:.0f}), "
        f"{ratio:.2f} times as fast; MAC ratio {batvit.info(reduced).mac_ratio:.2f}"
    )


if __name__ == "__main__":
    main()
