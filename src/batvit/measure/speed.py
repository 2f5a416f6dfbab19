"""How fast one model is beside another: warmed up, interleaved, synchronised, with median and spread."""

import csv
import io
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from batvit.data.loading import data_config, placed
from batvit.measure.clock import (
    compiled_alone,
    in_turns,
    peak_memory,
    quartiles,
    time_share,
)
from batvit.measure.macs import count_macs, count_parameters

COMPILE_MODES = ("default", "reduce-overhead", "max-autotune")
# all but the first record CUDA graphs in the second run, and play them from the third
GRAPH_WARMUP = 3


@dataclass(frozen=True)
class Timing:
    """One model, or one block, at one batch size."""

    batch_size: int
    step_time: float
    """median, milliseconds a batch"""
    step_time_iqr: float
    """distance of the quartiles, milliseconds"""
    samples_per_sec: float
    peak_memory_mb: float | None
    """what one forward pass allocates at most, beyond the weights and the input, in 1e6 bytes; None if that is not seen"""


@dataclass(frozen=True)
class Comparison:
    """A model beside the dense one, measured in the same run."""

    dense: Timing
    reduced: Timing
    dense_macs: int
    macs: int
    param_count: int
    rounds: int
    speedup_quartiles: tuple[float, float]
    """of the speed-ups of single rounds, the lower first"""
    reduction_share: float | None
    """share of the time of the reduced model spent in the named modules, 0 to 1; None if it ran compiled, or none is named"""
    compile_mode: str | None = None
    """of ``torch.compile``; None if both models ran eagerly"""
    when_compiled: "Comparison | None" = None
    """of an eager comparison: the same two models compiled, timed in the same rounds, if asked for"""

    @property
    def mode(self) -> str:
        """What ran: eager or compiled."""
        return "eager" if self.compile_mode is None else "compiled"

    @property
    def modes(self) -> "tuple[Comparison, ...]":
        """The comparison itself, and the compiled one if there is one."""
        return (self,) if self.when_compiled is None else (self, self.when_compiled)

    @property
    def fastest_dense(self) -> "Comparison":
        """The honest baseline: the one of the modes in which dense takes less time."""
        return min(self.modes, key=lambda found: found.dense.step_time)

    @property
    def speedup(self) -> float:
        """Median time of dense over median time of reduced."""
        return self.dense.step_time / self.reduced.step_time

    @property
    def mac_ratio(self) -> float:
        """Dense MACs over reduced MACs: what the speed-up would be if time were MACs."""
        return self.dense_macs / self.macs

    @property
    def realised_share(self) -> float:
        """Speed-up over MAC ratio."""
        return self.speedup / self.mac_ratio

    def to_dict(self) -> dict[str, Any]:
        """Flat, with timm's names for the reduced model and ``dense_`` before those of the dense one; of this mode alone.

        Of compiled models the memory and the share of the reduction are None: they are measured eagerly alone.
        """
        dense = {
            f"dense_{name}": value
            for name, value in asdict(self.dense).items()
            if name != "batch_size"
        }
        return {
            **asdict(self.reduced),
            **dense,
            "param_count": self.param_count,
            "gmacs": self.macs / 1e9,
            "dense_gmacs": self.dense_macs / 1e9,
            "mac_ratio": self.mac_ratio,
            "speedup": self.speedup,
            "speedup_low": self.speedup_quartiles[0],
            "speedup_high": self.speedup_quartiles[1],
            "realised_share": self.realised_share,
            "reduction_share": self.reduction_share,
            "rounds": self.rounds,
            "mode": self.mode,
            "compiled": self.compile_mode is not None,
            "compile_mode": self.compile_mode,
        }


@torch.inference_mode()
def benchmark(
    dense: nn.Module,
    reduced: nn.Module,
    images: Tensor,
    *,
    parts: Iterable[str] = (),
    rounds: int = 15,
    warmup: int = 3,
    compiled: bool = False,
    compile_mode: str = "default",
    macs: tuple[int, int] | None = None,
    param_count: int | None = None,
) -> Comparison:
    """Time two models on the same input, one after the other in every round.

    Args:
        dense, reduced: on one device, in one precision; put into eval mode.
        images: (B, 3, H, W) on that device, in that precision.
        parts: names of modules of ``reduced`` whose share of the time is reported. In a reduction's module lies all that is
            done at its site; not what gives a grid back at the end, nor what blocks with rotary tables of their own merge.
        rounds: measurements of each model.
        warmup: unmeasured runs of each model before; 3 at least where the compile mode records CUDA graphs.
        compiled: time both under ``torch.compile`` too, for this very shape, as :attr:`Comparison.when_compiled`: in every
            round dense and reduced run eagerly, then compiled. Forgets what was compiled before.
        compile_mode: of ``torch.compile``.
        macs: (dense, reduced) of one input, for what cannot be counted, as another engine's model; counted by default.
        param_count: of ``reduced``; counted by default.

    Returns:
        What was found eagerly, and in it what was found compiled.

    Raises:
        ValueError: if rounds, warmup or a number of MACs is too small.
    """
    _check(rounds, warmup, compiled)
    if macs is not None and min(macs) < 1:
        raise ValueError(
            f"macs must be two counts of 1 or more, (dense, reduced), got {macs}; leave them out to count them"
        )
    models = [dense.eval(), reduced.eval()]
    dense_macs, reduced_macs = macs or [
        count_macs(model, tuple(images.shape[1:]))[""] for model in models
    ]
    params = count_parameters(reduced) if param_count is None else param_count
    share = time_share(reduced, images, parts) if parts else None
    peaks = [peak_memory(model, images) or None for model in models]
    run: list[Callable[..., Any]] = [*models]
    if compiled:
        # graphs of other shapes count against torch's limit of recompilations, and past it a model would run eagerly
        torch.compiler.reset()
        run += [torch.compile(model, dynamic=False, mode=compile_mode) for model in models]
    warmup = _enough(warmup, compile_mode if compiled else None)
    times = in_turns(
        [partial(model, images) for model in run], images, rounds=rounds, warmup=warmup
    )

    def found(
        first: list[float], second: list[float], mode: str | None, other: Comparison | None = None
    ) -> Comparison:
        low, _, high = quartiles([one / two for one, two in zip(first, second, strict=True)])
        memory, part = (peaks, share) if mode is None else ((None, None), None)
        timings = _timing(len(images), first, memory[0]), _timing(len(images), second, memory[1])
        counts = dense_macs, reduced_macs, params, rounds
        return Comparison(timings[0], timings[1], *counts, (low, high), part, mode, other)

    return found(
        times[0], times[1], None, found(times[2], times[3], compile_mode) if compiled else None
    )


@torch.inference_mode()
def time_block(
    block: nn.Module,
    inputs: Sequence[tuple[Tensor, dict[str, Any]]],
    *,
    rounds: int = 15,
    warmup: int = 3,
    compile_mode: str | None = None,
) -> tuple[Timing, ...]:
    """Time a block at several numbers of tokens, one after the other in every round.

    Args:
        block: put into eval mode.
        inputs: x (B, tokens, C) and the other arguments of the block's forward by name, for each number of tokens.
        rounds: measurements of each.
        warmup: unmeasured runs of each before; 3 at least where the compile mode records CUDA graphs.
        compile_mode: of ``torch.compile``, for each input on its own; None runs the block eagerly. Forgets what was
            compiled before.

    Returns:
        A timing for each input, in their order.

    Raises:
        ValueError: if rounds or warmup is too small, or there is no input.
    """
    _check(rounds, warmup, compile_mode is not None)
    if not inputs:
        raise ValueError(
            "inputs is empty; give a tensor (B, tokens, C) and the block's arguments for each number of tokens"
        )
    block.eval()
    peaks: list[float | None] = [None] * len(inputs)
    runs: list[Callable[[], Any]]
    if compile_mode is None:
        peaks = [peak_memory(block, x, **arguments) or None for x, arguments in inputs]
        runs = [partial(block, x, **arguments) for x, arguments in inputs]
    else:
        torch.compiler.reset()
        runs = [compiled_alone(block, x, arguments, compile_mode) for x, arguments in inputs]
    times = in_turns(runs, inputs[0][0], rounds=rounds, warmup=_enough(warmup, compile_mode))
    return tuple(
        _timing(len(x), measured, peak)
        for (x, _), measured, peak in zip(inputs, times, peaks, strict=True)
    )


def token_counts(known: Iterable[int], *, least: int, steps: Iterable[int] = (16, 32)) -> list[int]:
    """Some numbers of tokens, and the nearest multiples of each step on both sides of each, sorted.

    Args:
        known: the numbers; they stay, whatever they are.
        least: multiples below are left out.
        steps: what vector units and tiles like.
    """
    known, steps = set(known), tuple(steps)
    near = {
        edge
        for count in known
        for step in steps
        for edge in (count // step * step, -(-count // step) * step)
    }
    return sorted(known | {count for count in near if count >= least})


def noise(model: nn.Module, batch_size: int) -> Tensor:
    """Return a batch of noise, always the same, as a model takes pictures.

    Speed does not depend on what pictures show.
    """
    generator = torch.Generator().manual_seed(0)
    size = data_config(model)["input_size"]
    return placed(torch.randn(batch_size, *size, generator=generator), model)


def as_csv(rows: Sequence[Mapping[str, Any]]) -> str:
    """Flat results as a table with a head; what is None is empty. All have the keys of the first."""
    text = io.StringIO()
    table = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
    table.writeheader()
    table.writerows(rows)
    return text.getvalue()


def _check(rounds: int, warmup: int, compiled: bool) -> None:
    if rounds < 1:
        raise ValueError(f"rounds must be 1 or more, got {rounds}")
    if compiled and warmup < 1:
        raise ValueError(f"warmup must be 1 or more, as the first run compiles, got {warmup}")
    if warmup < 0:
        raise ValueError(f"warmup must be 0 or more, got {warmup}")


def _enough(warmup: int, compile_mode: str | None) -> int:
    """How often to run unmeasured, for all that comes before a graph is played to lie there."""
    return warmup if compile_mode in (None, COMPILE_MODES[0]) else max(warmup, GRAPH_WARMUP)


def _timing(batch: int, measured: list[float], peak: float | None) -> Timing:
    low, median, high = quartiles(measured)
    return Timing(batch, median, high - low, 1e3 * batch / median, peak)
