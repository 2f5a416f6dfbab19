"""How fast the reduction could be at best: the same token counts, cut off at no cost, beside dense and BAT.

python benchmarks/bound.py deit_small_patch16_224 --keep-rate 0.7 --batch-size 1 --threads 2 --engine onnx

What is cut is not chosen, so the bound is one of time alone. Weights are random.
"""

import argparse
import copy
import statistics
import tempfile
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

import batvit
from batvit.core import Assignment
from batvit.deploy.format import SUFFIXES
from batvit.measure.clock import in_turns
from batvit.models.create import create_model
from batvit.reduction.site import Reduce, reductions
from batvit.reduction.tokens import Tokens

PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16}


class Cut(Reduce):
    """Lets as many tokens go on as the reduction would, those that come first."""

    def forward(self, tokens: Tokens, captured: Any, rope: tuple[torch.Tensor, ...] = ()) -> Tokens:
        """A view: nothing is computed. Attention gets a bias of zeros where it would get one."""
        counts = self.counts(tokens.origin.tokens)
        batch, left = tokens.origin.batch, counts.tokens_out
        origin = Assignment(torch.zeros(batch, tokens.origin.tokens, dtype=torch.long), left)
        bias = (
            tokens.x.new_zeros(batch, 1, 1, self.prefix + left) if self.config.size_aware else None
        )
        return replace(
            tokens,
            x=tokens.x[:, : self.prefix + left],
            size=tokens.size[:, :left],
            origin=origin,
            bias=bias,
            rope=(),
            merged_rope=(),
        )


def cut(model: nn.Module) -> nn.Module:
    """A copy whose sites cost nothing."""
    twin = copy.deepcopy(model)
    for site in reductions(twin).values():
        site.__class__ = Cut
    return twin


def runs(
    args: argparse.Namespace, models: list[nn.Module], images: torch.Tensor, folder: Path
) -> list[Callable[[], Any]]:
    """One call of each model in the engine asked for."""
    if args.engine in ("eager", "compiled"):
        called = (
            models
            if args.engine == "eager"
            else [torch.compile(model, dynamic=False) for model in models]
        )
        return [partial(model, images.to(PRECISIONS[args.precision])) for model in called]
    files = [folder / f"{i}{SUFFIXES[args.engine]}" for i in range(len(models))]
    for model, file in zip(models, files, strict=True):
        batvit.export(model, file)
    return [partial(batvit.load_engine(file, precision=args.precision), images) for file in files]


@torch.inference_mode()
def main() -> None:
    """Print one line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model")
    parser.add_argument("--keep-rate", type=float, default=0.7)
    parser.add_argument("--batch-size", type=int, default=1)
    parser.add_argument(
        "--engine", choices=("eager", "compiled", "onnx", "openvino"), default="onnx"
    )
    parser.add_argument("--precision", choices=PRECISIONS, default="fp32")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--rounds", type=int, default=101)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    dense = create_model(args.model).eval()
    reduced = batvit.patch(copy.deepcopy(dense), keep_rate=args.keep_rate)
    images = torch.randn(args.batch_size, 3, *dense.patch_embed.img_size)
    models = [dense, reduced, cut(reduced)]
    if args.engine in ("eager", "compiled"):
        models = [model.to(PRECISIONS[args.precision]) for model in models]
    with tempfile.TemporaryDirectory() as folder:
        times = in_turns(
            runs(args, models, images, Path(folder)), images, rounds=args.rounds, warmup=5
        )
    base, bat, bound = (statistics.median(each) for each in times)
    print(
        f"{args.model}, keep {args.keep_rate}, {args.engine}, {args.precision}, batch {args.batch_size}, "
        f"{args.threads} threads: dense {base:.1f} ms, BAT {bat:.1f} ms ({base / bat:.2f} times as fast), "
        f"cut {bound:.1f} ms ({base / bound:.2f}); MAC ratio {batvit.info(reduced).mac_ratio:.2f}"
    )


if __name__ == "__main__":
    main()
