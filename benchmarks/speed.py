r"""When fewer tokens pay: speed-up over model, keep rate, precision and batch size.

python benchmarks/speed.py deit_tiny_patch16_224 deit_small_patch16_224 --keep-rates 0.7 0.5 \
    --precisions fp32 bf16 --batch-sizes 1 16 --threads 2

Dense and reduced run in turns, eager and compiled, in the same rounds. Speed does not depend on the
weights, so they are random.
"""

import argparse
import copy
from itertools import product
from typing import Any

import torch
from rich.progress import track
from torch import nn

import batvit
from batvit.inspection.block_timing import reduction_names
from batvit.models.create import create_model
from results import show

PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def main() -> None:
    """Print a Markdown table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("models", nargs="+")
    parser.add_argument("--keep-rates", type=float, nargs="+", default=[0.7])
    parser.add_argument("--precisions", nargs="+", choices=PRECISIONS, default=["fp32"])
    parser.add_argument("--batch-sizes", type=int, nargs="+", default=[1, 16])
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--record", action="store_true", help="keep the rows in docs/results")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    wanted = list(product(args.models, args.keep_rates, args.precisions, args.batch_sizes))
    rows = []
    for name, keep_rate, precision, batch_size in track(wanted, "timing"):
        dense = create_model(name).eval().to(args.device, PRECISIONS[precision])
        row = {"model": name, "keep_rate": keep_rate, "precision": precision}
        rows.append(row | measure(dense, keep_rate, batch_size, rounds=args.rounds))
    show("speed", rows, keep=args.record)


def measure(dense: nn.Module, keep_rate: float, batch_size: int, *, rounds: int) -> dict[str, Any]:
    """Time a model beside itself with fewer tokens, eager and compiled."""
    reduced = batvit.patch(copy.deepcopy(dense), keep_rate=keep_rate)
    example = next(dense.parameters())
    images = torch.randn(batch_size, 3, *dense.patch_embed.img_size).to(example)
    found = batvit.benchmark(
        dense, reduced, images, parts=reduction_names(reduced), rounds=rounds, compiled=True
    )
    compiled = found.when_compiled
    assert compiled is not None
    return {
        "batch_size": batch_size,
        "mac_ratio": found.mac_ratio,
        "speedup": found.speedup,
        "realised_share": found.realised_share,
        "compiled_speedup": compiled.speedup,
        "compiled_share": compiled.realised_share,
        "dense_ms": found.dense.step_time,
        "dense_compiled_ms": compiled.dense.step_time,
        "reduction_share": found.reduction_share,
    }


if __name__ == "__main__":
    main()
