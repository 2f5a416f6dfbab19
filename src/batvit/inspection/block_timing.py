"""What fewer tokens are worth to one block: it is timed at the numbers of tokens of a schedule, and at round ones."""

from dataclasses import asdict
from typing import Any

import torch
from torch import Tensor, nn

from batvit.backbones.patch import schedule_of
from batvit.backbones.registry import adapter_of, anatomy_of
from batvit.data.loading import placed
from batvit.measure.macs import count_macs
from batvit.measure.speed import time_block, token_counts
from batvit.reduction.site import reductions


def measure(
    model: nn.Module,
    reduced: nn.Module,
    *,
    batch: int,
    rounds: int,
    warmup: int,
    compile_mode: str | None,
) -> list[dict[str, Any]]:
    """Time the middle block of a dense model at every number of tokens that matters.

    With fewer tokens than the dense model has it runs as it does behind a site: with a bias for their sizes, if ``reduced``
    knows them, and the block takes one.

    Args:
        model: dense, of any library; at its own image size.
        reduced: a patched copy of it, whose schedule is read.
        batch, rounds, warmup, compile_mode: as in :func:`batvit.benchmark.time_block`.

    Returns:
        A flat row for each number of tokens, prefix included, fewest first.
    """
    anatomy = anatomy_of(model)
    block: Any = anatomy.blocks[anatomy.depth // 2]
    kind = next(kind for kind in adapter_of(model).blocks if kind.own_class() is type(block))
    dense = anatomy.prefix + anatomy.patches
    scheduled = {anatomy.prefix + counts.tokens_out for counts in schedule_of(reduced)}
    counts = token_counts({dense} | scheduled, least=anatomy.prefix + 1)
    # all inputs share the memory of the longest
    noise = placed(
        torch.randn(batch * counts[-1] * anatomy.width, generator=torch.Generator().manual_seed(0)),
        block,
    )
    inputs = [
        noise[: batch * count * anatomy.width].view(batch, count, anatomy.width) for count in counts
    ]
    sized = any(site.config.size_aware for site in reductions(reduced).values())
    runs = [
        (x, kind.trial(block, x) | (_sizes(kind.mask, x) if sized and x.shape[1] < dense else {}))
        for x in inputs
    ]
    timings = time_block(block, runs, rounds=rounds, warmup=warmup, compile_mode=compile_mode)
    shadows = [torch.empty(1, *x.shape[1:], dtype=x.dtype, device="meta") for x in inputs]
    macs = [count_macs(block, tuple(x.shape[1:]), **kind.trial(block, x))[""] for x in shadows]
    at_dense = counts.index(dense)
    return [
        asdict(timing)
        | {
            "block": anatomy.depth // 2,
            "tokens": count,
            "dense": count == dense,
            "scheduled": count in scheduled,
            "us_per_token": 1e3 * timing.step_time / (batch * count),
            "speedup": timings[at_dense].step_time / timing.step_time,
            "gmacs": total / 1e9,
            "mac_ratio": macs[at_dense] / total,
            "rounds": rounds,
            "compile_mode": compile_mode,
        }
        for count, timing, total in zip(counts, timings, macs, strict=True)
    ]


def _sizes(mask: str | None, x: Tensor) -> dict[str, Any]:
    return {} if mask is None else {mask: x.new_zeros(len(x), 1, 1, x.shape[1])}
