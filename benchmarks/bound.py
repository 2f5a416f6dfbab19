r"""How fast the reduction could be at best: the same token counts, cut off at no cost.

python benchmarks/bound.py deit_small_patch16_224 --keep-rate 0.7 --batch-size 1 --threads 2 \
    --engines onnx openvino

It is timed beside the dense model and BAT. What is cut is not chosen, so the bound is one of time
alone. Weights are random.
"""

import argparse
import copy
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

import batvit
from batvit.core import Assignment
from batvit.deploy.formats import FORMATS
from batvit.measure.clock import in_turns, quartiles, speedup
from batvit.models.create import create_model
from batvit.reduction.site import Reduce, reductions
from batvit.reduction.tokens import Tokens
from results import show

PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16}
OF_TORCH = ("eager", "compiled")
ENGINES = (*OF_TORCH, "onnx", "openvino")


class Cut(Reduce):
    """Let as many tokens go on as the reduction would, those that come first."""

    def forward(self, tokens: Tokens, captured: Any, rope: tuple[torch.Tensor, ...] = ()) -> Tokens:
        """Return a view: nothing is computed. Attention gets zeros where it would get a bias."""
        counts = self.counts(tokens.origin.tokens)
        batch = tokens.origin.batch
        left = counts.tokens_out
        groups = torch.zeros(batch, tokens.origin.tokens, dtype=torch.long)
        bias = None
        if self.config.size_aware:
            bias = tokens.x.new_zeros(batch, 1, 1, self.prefix + left)
        return replace(
            tokens,
            x=tokens.x[:, : self.prefix + left],
            sizes=tokens.sizes[:, :left],
            origin=Assignment(groups, left),
            bias=bias,
            rope=(),
            merged_rope=(),
        )


def cut(model: nn.Module) -> nn.Module:
    """Return a copy whose sites cost nothing."""
    twin = copy.deepcopy(model)
    for site in reductions(twin).values():
        site.__class__ = Cut
    return twin


def calls(
    models: Sequence[nn.Module], images: torch.Tensor, folder: Path, *, engine: str, precision: str
) -> list[Callable[[], Any]]:
    """Return one call of each model in an engine; files are written into the folder."""
    if engine == "eager":
        return [partial(model, images) for model in models]
    if engine == "compiled":
        return [partial(torch.compile(model, dynamic=False), images) for model in models]
    found = []
    for i, model in enumerate(models):
        file = folder / f"{i}{FORMATS[engine].suffix}"
        batvit.export(model, file)
        found.append(partial(batvit.load_engine(file, precision=precision), images))
    return found


@torch.inference_mode()
def main() -> None:
    """Print a Markdown table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model")
    parser.add_argument("--keep-rate", type=float, default=0.7)
    parser.add_argument("--batch-size", type=int, default=1)
    parser.add_argument("--engines", nargs="+", choices=ENGINES, default=["onnx"])
    parser.add_argument("--precision", choices=PRECISIONS, default="fp32")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--rounds", type=int, default=101)
    parser.add_argument("--record", action="store_true", help="keep the rows in docs/results")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    dense = create_model(args.model).eval()
    reduced = batvit.patch(copy.deepcopy(dense), keep_rate=args.keep_rate)
    rows = []
    for engine in args.engines:
        base, bat, bound = measure([dense, reduced, cut(reduced)], engine, args)
        base_ms = quartiles(base).median
        rows.append(
            {
                "engine": engine,
                "precision": args.precision,
                "dense_ms": base_ms,
                "bat": speedup(base, bat).median,
                "bound": speedup(base, bound).median,
            }
        )
    print(
        f"{args.model}, keep {args.keep_rate}, batch {args.batch_size}, {args.threads} threads: "
        f"MAC ratio {batvit.info(reduced).mac_ratio:.2f}\n"
    )
    show("bound", rows, keep=args.record)


def measure(
    models: Sequence[nn.Module], engine: str, args: argparse.Namespace
) -> list[list[float]]:
    """Return the times of each model in one engine, in milliseconds."""
    images = torch.randn(args.batch_size, 3, *models[0].patch_embed.img_size)
    if engine in OF_TORCH:
        dtype = PRECISIONS[args.precision]
        models = [copy.deepcopy(model).to(dtype) for model in models]
        images = images.to(dtype)
    with tempfile.TemporaryDirectory() as folder:
        runs = calls(models, images, Path(folder), engine=engine, precision=args.precision)
        return in_turns(runs, images, rounds=args.rounds, warmup=5)


if __name__ == "__main__":
    main()
