"""Images per second on an accelerator: dense, BAT and ToMe at equal MACs, compiled, in turns.

python benchmarks/gpu.py deit_small_patch16_224 deit_base_patch16_224 --img-size 224 384 --batch-size 1 8 32 256

Batch 1 runs in CUDA graphs (``reduce-overhead``), larger ones in torch.compile's default mode. Speed does not depend on the
weights, so they are random.
"""

import argparse
import copy
import os

import torch
from torch import nn

import batvit
from batvit.benchmark import compare
from batvit.budget import Family, at_macs
from batvit.checkpoint import create_model

PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def tome(model: nn.Module, macs: int) -> nn.Module:
    """ToMe as published, at no more than so many MACs."""
    share = macs / batvit.info(model).macs
    return batvit.patch(copy.deepcopy(model), at_macs(model, Family.of("tome", model), share))


def rows(dense: nn.Module, keep_rate: float, images: torch.Tensor, args: argparse.Namespace) -> list[str]:
    """A Markdown row for each reduced model beside dense."""
    bat = batvit.patch(copy.deepcopy(dense), keep_rate=keep_rate)
    mode = "reduce-overhead" if len(images) == 1 and images.is_cuda else "default"
    lines = []
    for name, model in (("BAT", bat), ("ToMe", tome(dense, batvit.info(bat).macs))):
        found = compare(dense, model, images, rounds=args.rounds, compiled=True, compile_mode=mode).fastest_dense
        lines.append(
            f"| {name} {keep_rate} | {images.shape[-1]} | {len(images)} | {found.mode} | {found.macs / 1e9:.2f} | "
            f"{found.dense.samples_per_sec:.0f} | {found.reduced.samples_per_sec:.0f} | {found.speedup:.2f} | "
            f"{found.mac_ratio:.2f} | {found.realised_share:.2f} |"
        )
    return lines


def main() -> None:
    """Print Markdown tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="+")
    parser.add_argument("--img-size", type=int, nargs="+", default=[224])
    parser.add_argument("--batch-size", type=int, nargs="+", default=[1, 8, 32, 256])
    parser.add_argument("--keep-rate", type=float, nargs="+", default=[0.7, 0.5])
    parser.add_argument("--precision", choices=PRECISIONS, default="bf16")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--rounds", type=int, default=15)
    args = parser.parse_args()
    # torch's profiler, which measures memory on a CPU, writes notes of its own
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")
    where = torch.cuda.get_device_name(args.device) if args.device.startswith("cuda") else args.device
    for name in args.models:
        print(f"\n{name}, {args.precision}, {where}, torch {torch.__version__}, median of {args.rounds} in turns\n")
        print("| | image | batch | baseline | G MACs | dense, images/s | images/s | speed-up | MAC ratio | share |")
        print("|---|---|---|---|---|---|---|---|---|---|")
        for size in args.img_size:
            dense = create_model(name, image_size=(size, size)).to(args.device, PRECISIONS[args.precision]).eval()
            for batch in args.batch_size:
                images = torch.randn(batch, 3, size, size).to(args.device, PRECISIONS[args.precision])
                for keep_rate in args.keep_rate:
                    print("\n".join(rows(dense, keep_rate, images, args)), flush=True)


if __name__ == "__main__":
    main()
