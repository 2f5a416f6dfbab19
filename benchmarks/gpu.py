r"""Images per second on an accelerator: dense, BAT and ToMe at equal MACs, compiled, in turns.

python benchmarks/gpu.py deit_small_patch16_224 deit_base_patch16_224 \
    --img-size 224 384 --batch-size 256 1

Batch 1 runs in CUDA graphs (``reduce-overhead``), larger ones in torch.compile's default mode; each
model is one graph, or the script ends. The baseline is the faster of compiled and eager dense. No
reduced model takes through its last MLP what its head does not read. Speed does not depend on the
weights, so they are random.
"""

import argparse
import copy
from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from torch import nn

import batvit
from batvit.budget import Family, at_macs
from batvit.measure.clock import compiled_alone, in_turns, quartiles, speedup
from batvit.models.create import create_model

PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def reduced(dense: nn.Module, keep_rates: Sequence[float]) -> dict[str, nn.Module]:
    """BAT at each rate, and ToMe as published at no more MACs."""
    models: dict[str, nn.Module] = {}
    for rate in keep_rates:
        bat = batvit.patch(copy.deepcopy(dense), keep_rate=rate, prefix_only=True)
        models[f"BAT {rate}"] = bat
        tome = at_macs(dense, Family.of("tome", dense), 1 / batvit.info(bat).mac_ratio)
        models[f"ToMe {rate}"] = batvit.patch(copy.deepcopy(dense), tome)
    return models


@torch.inference_mode()
def rows(
    dense: nn.Module, models: dict[str, nn.Module], images: torch.Tensor, rounds: int
) -> list[str]:
    """A Markdown row for each reduced model beside dense."""
    graphs = len(images) == 1 and images.is_cuda
    if graphs:
        settings: Any = torch._inductor.config
        settings.triton.cudagraph_or_error = True
    torch.compiler.reset()
    mode = "reduce-overhead" if graphs else "default"
    compiled = [
        compiled_alone(model, images, {}, mode, fullgraph=True)
        for model in (dense, *models.values())
    ]
    times = in_turns([partial(dense, images), *compiled], images, rounds=rounds, warmup=3)
    # dense as it is faster, eager or compiled
    fastest = min(times[:2], key=lambda each: quartiles(each).median)
    eager, base = (quartiles(each).median for each in times[:2])
    lines = []
    for (name, model), own in zip(models.items(), times[2:], strict=True):
        cost = batvit.info(model)
        taken = quartiles(own).median
        factor = speedup(fastest, own).median
        what = f"{name} | {images.shape[-1]} | {len(images)} | {cost.macs / 1e9:.2f}"
        # milliseconds a batch to images a second
        speeds = " | ".join(f"{1e3 * len(images) / each:.0f}" for each in (eager, base, taken))
        share = factor / cost.mac_ratio
        lines.append(f"| {what} | {speeds} | {factor:.2f} | {cost.mac_ratio:.2f} | {share:.2f} |")
    return lines


def main() -> None:
    """Print Markdown tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("models", nargs="+")
    parser.add_argument("--img-size", type=int, nargs="+", default=[224])
    parser.add_argument("--batch-size", type=int, nargs="+", default=[256, 1])
    parser.add_argument("--keep-rate", type=float, nargs="+", default=[0.7, 0.5])
    parser.add_argument("--precision", choices=PRECISIONS, default="bf16")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--rounds", type=int, default=15)
    args = parser.parse_args()
    where = (
        torch.cuda.get_device_name(args.device) if args.device.startswith("cuda") else args.device
    )
    for name in args.models:
        how = f"torch {torch.__version__}, median of {args.rounds} in turns"
        print(f"\n{name}, {args.precision}, {where}, {how}\n")
        head = "| | image | batch | G MACs | dense, eager, images/s | dense | images/s "
        print(head + "| speed-up | MAC ratio | share |")
        print("|---|---|---|---|---|---|---|---|---|---|")
        for size in args.img_size:
            dense = (
                create_model(name, image_size=(size, size))
                .to(args.device, PRECISIONS[args.precision])
                .eval()
            )
            models = reduced(dense, args.keep_rate)
            for batch in args.batch_size:
                images = torch.randn(batch, 3, size, size).to(
                    args.device, PRECISIONS[args.precision]
                )
                print("\n".join(rows(dense, models, images, args.rounds)), flush=True)


if __name__ == "__main__":
    main()
