"""What fewer tokens are worth to one block, at the numbers of a schedule and at round ones."""

from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn

from batvit.backbones.patch import schedule_of
from batvit.backbones.registry import adapter_of, anatomy_of
from batvit.data.loading import placed
from batvit.measure.block_speed import time_block, token_counts
from batvit.measure.macs import count_macs
from batvit.measure.speed import Timing
from batvit.reduction.site import reductions


@dataclass(frozen=True)
class BlockTiming:
    """One block at one number of tokens."""

    timing: Timing
    block: int
    tokens: int
    """prefix included"""
    dense: bool
    """whether the dense model has so many"""
    scheduled: bool
    """whether the reduced model has so many behind a site"""
    us_per_token: float
    """microseconds"""
    speedup: float
    """over the block at the dense number of tokens"""
    unsteady: bool
    gmacs: float
    mac_ratio: float
    """MACs at the dense number of tokens over its own"""
    rounds: int
    compile_mode: str | None

    def to_dict(self) -> dict[str, Any]:
        """Return flat values."""
        values = asdict(self)
        del values["timing"]
        return asdict(self.timing) | values


def time_middle_block(
    model: nn.Module,
    reduced: nn.Module,
    *,
    batch_size: int,
    rounds: int = 15,
    warmup: int = 3,
    compile_mode: str | None = None,
) -> list[BlockTiming]:
    """Time the middle block of a dense model at every number of tokens that matters.

    With fewer tokens than the dense model has it runs as it does behind a site: with a bias for
    their sizes, if ``reduced`` knows them, and the block takes one.

    Args:
        model: dense, of any library; at its own image size.
        reduced: a patched copy of it, whose schedule is read.
        batch_size: sequences of tokens in a batch.
        rounds, warmup, compile_mode: as in :func:`batvit.measure.block_speed.time_block`.

    Returns:
        One for each number of tokens, fewest first.
    """
    anatomy = anatomy_of(model)
    middle = anatomy.depth // 2
    block: Any = anatomy.blocks[middle]
    dense = anatomy.prefix + anatomy.patches
    scheduled = {anatomy.prefix + counts.tokens_out for counts in schedule_of(reduced)}
    counts = token_counts({dense} | scheduled, least=anatomy.prefix + 1)
    inputs = _inputs(model, reduced, block, counts, batch_size=batch_size)
    speeds = time_block(
        block,
        inputs,
        baseline=counts.index(dense),
        rounds=rounds,
        warmup=warmup,
        compile_mode=compile_mode,
    )
    macs = {
        count: _block_macs(model, block, x) for count, (x, _) in zip(counts, inputs, strict=True)
    }
    rows = []
    for count, speed in zip(counts, speeds, strict=True):
        row = BlockTiming(
            timing=speed.timing,
            block=middle,
            tokens=count,
            dense=count == dense,
            scheduled=count in scheduled,
            us_per_token=1e3 * speed.timing.step_time / (batch_size * count),
            speedup=speed.speedup,
            unsteady=speed.unsteady,
            gmacs=macs[count] / 1e9,
            mac_ratio=macs[dense] / macs[count],
            rounds=speed.rounds,
            compile_mode=compile_mode,
        )
        rows.append(row)
    return rows


def reduction_names(model: nn.Module) -> list[str]:
    """Return the names of the modules in which a patched model reduces its tokens."""
    anatomy = anatomy_of(model)
    return [f"{anatomy.name_of(block)}.reduce" for block in reductions(model)]


def _inputs(
    model: nn.Module, reduced: nn.Module, block: nn.Module, counts: list[int], *, batch_size: int
) -> list[tuple[Tensor, dict[str, Any]]]:
    """Return noise (B, tokens, C) and the block's other arguments, for each number of tokens."""
    anatomy = anatomy_of(model)
    kind = _kind(model, block)
    dense = anatomy.prefix + anatomy.patches
    size_aware = any(site.config.size_aware for site in reductions(reduced).values())
    # all inputs share the memory of the longest
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(batch_size * counts[-1] * anatomy.width, generator=generator)
    noise = placed(noise, block)
    inputs = []
    for count in counts:
        part = noise[: batch_size * count * anatomy.width]
        x = part.view(batch_size, count, anatomy.width)
        arguments = dict(kind.trial(block, x))
        if size_aware and count < dense and kind.mask is not None:
            arguments[kind.mask] = x.new_zeros(batch_size, 1, 1, count)
        inputs.append((x, arguments))
    return inputs


def _block_macs(model: nn.Module, block: nn.Module, x: Tensor) -> int:
    """Count the MACs of the block for one sequence of so many tokens."""
    shadow = torch.empty(1, *x.shape[1:], dtype=x.dtype, device="meta")
    arguments = _kind(model, block).trial(block, shadow)
    return count_macs(block, tuple(x.shape[1:]), **arguments)[""]


def _kind(model: nn.Module, block: nn.Module) -> Any:
    """Return the patched class of a dense block, which knows its arguments."""
    return next(
        kind for kind in adapter_of(model).reduced_classes() if kind.own_class() is type(block)
    )
