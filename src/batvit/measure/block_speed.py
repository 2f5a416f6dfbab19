"""One block at several numbers of tokens, timed in turns."""

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from batvit.measure.clock import (
    all_steady,
    compiled_alone,
    in_turns,
    is_steady,
    peak_memory,
    speedup,
)
from batvit.measure.compiling import explained_compiler
from batvit.measure.speed import Timing, check_rounds, enough_warmup


class BlockSpeed(NamedTuple):
    """A block at one number of tokens."""

    timing: Timing
    speedup: float
    """over the same block at the number of tokens that it is compared with"""
    unsteady: bool
    """as in :class:`batvit.measure.speed.SpeedComparison`"""
    rounds: int
    """as measured"""


@torch.inference_mode()
@explained_compiler()
def time_block(
    block: nn.Module,
    inputs: Sequence[tuple[Tensor, dict[str, Any]]],
    *,
    baseline: int = 0,
    rounds: int = 15,
    warmup: int = 3,
    compile_mode: str | None = None,
) -> tuple[BlockSpeed, ...]:
    """Time a block at several numbers of tokens, one after the other in every round.

    On Linux this changes how the whole process allocates memory, for good: see
    :func:`batvit.measure.clock.keep_freed_memory`.

    Args:
        block: put into eval mode.
        inputs: x (B, tokens, C) and the other arguments of the block's forward by name, for each
            number of tokens.
        baseline: which of the inputs the speed-ups are over.
        rounds: measurements of each.
        warmup: unmeasured runs of each before; 3 at least where the compile mode records CUDA
            graphs.
        compile_mode: of ``torch.compile``, for each input on its own; None runs the block eagerly.
            Forgets what was compiled before.

    Returns:
        A timing and a speed-up for each input, in their order.

    Raises:
        ValueError: if rounds or warmup is too small, there is no input, or ``torch.compile`` does
            not work here.
    """
    check_rounds(rounds, warmup, compiled=compile_mode is not None)
    if not inputs:
        raise ValueError(
            "inputs is empty; give a tensor (B, tokens, C) and the block's arguments for each "
            "number of tokens"
        )
    block.eval()
    if compile_mode is not None:
        torch.compiler.reset()
    peaks: list[float | None] = []
    runs: list[Callable[[], Any]] = []
    for x, arguments in inputs:
        if compile_mode is None:
            peaks.append(peak_memory(block, x, **arguments) or None)
            runs.append(partial(block, x, **arguments))
        else:
            peaks.append(None)
            runs.append(compiled_alone(block, x, arguments, compile_mode))
    warmup = enough_warmup(warmup, compile_mode)
    enough = partial(all_steady, baseline=baseline)
    times = in_turns(runs, inputs[0][0], rounds=rounds, warmup=warmup, enough=enough)
    speeds = []
    for (x, _), measured, peak in zip(inputs, times, peaks, strict=True):
        timing = Timing.from_times(len(x), measured, peak)
        ratio = speedup(times[baseline], measured).median
        unsteady = not is_steady(times[baseline], measured)
        speeds.append(BlockSpeed(timing, ratio, unsteady, len(measured)))
    return tuple(speeds)


def token_counts(
    counts: Iterable[int], *, least: int, steps: Iterable[int] = (16, 32)
) -> list[int]:
    """Return numbers of tokens, and the nearest multiples of each step on both sides, sorted.

    Args:
        counts: the numbers; they stay, whatever they are.
        least: multiples below are left out.
        steps: what vector units and tiles like.
    """
    wanted = set(counts)
    multiples = set()
    for count in wanted:
        for step in steps:
            below = count // step * step
            above = -(-count // step) * step
            multiples |= {below, above}
    return sorted(wanted | {multiple for multiple in multiples if multiple >= least})
