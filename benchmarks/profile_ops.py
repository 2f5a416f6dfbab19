"""Where the time of one forward pass goes, by torch operation, dense beside reduced.

python benchmarks/profile_ops.py deit_small_patch16_224 --batch-size 16 --precision bf16 --threads 2
"""

import argparse
import copy

import torch
from torch.profiler import ProfilerActivity, profile

import batvit
from batvit.measure.clock import keep_freed_memory
from batvit.models.create import create_model

PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16}


@torch.inference_mode()
def self_times(model: torch.nn.Module, images: torch.Tensor, rounds: int) -> dict[str, float]:
    """Milliseconds a forward pass spends in each operation itself."""
    model(images)
    with profile(activities=[ProfilerActivity.CPU]) as record:
        for _ in range(rounds):
            model(images)
    return {event.key: event.self_cpu_time_total / 1e3 / rounds for event in record.key_averages()}


def main() -> None:
    """Print a Markdown table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model")
    parser.add_argument("--keep-rate", type=float, default=0.7)
    parser.add_argument("--mode", default="training-free")
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--precision", choices=PRECISIONS, default="fp32")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--rows", type=int, default=14)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    keep_freed_memory()
    dense = create_model(args.model).to(PRECISIONS[args.precision]).eval()
    reduced = batvit.patch(copy.deepcopy(dense), mode=args.mode, keep_rate=args.keep_rate)
    images = torch.randn(args.batch_size, 3, *dense.patch_embed.img_size).to(
        PRECISIONS[args.precision]
    )
    before, after = (self_times(model, images, args.rounds) for model in (dense, reduced))
    what = f"operation (ms, {args.precision}, batch {args.batch_size})"
    print(f"| {what} | dense | reduced | ratio |\n|---|---|---|---|")
    for name in sorted(after, key=after.__getitem__, reverse=True)[: args.rows]:
        ratio = f"{before[name] / after[name]:.2f}" if before.get(name) else ""
        operation = name.removeprefix("aten::")
        print(f"| {operation} | {before.get(name, 0):.1f} | {after[name]:.1f} | {ratio} |")
    total = sum(before.values()), sum(after.values())
    print(f"| all | {total[0]:.1f} | {total[1]:.1f} | {total[0] / total[1]:.2f} |")


if __name__ == "__main__":
    main()
