"""How fast one model is beside another: warmed up, interleaved, synchronised, with median and spread."""

import statistics
import time
from collections.abc import Iterable
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.profiler import ProfilerActivity, profile

from batvit.macs import count_macs, count_parameters


@dataclass(frozen=True)
class Timing:
    """One model at one batch size."""

    batch_size: int
    step_time: float
    """median, milliseconds a batch"""
    step_time_iqr: float
    """distance of the quartiles, milliseconds"""
    samples_per_sec: float
    peak_memory_mb: float
    """what one forward pass allocates at most, beyond the weights and the input, in 1e6 bytes"""


@dataclass(frozen=True)
class Comparison:
    """A model beside the dense one, measured in the same run."""

    dense: Timing
    reduced: Timing
    dense_macs: int
    macs: int
    param_count: int
    rounds: int
    compiled: bool
    reduction_share: float
    """share of the time of the reduced model spent in the named modules, eager, 0 to 1"""

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
        """Flat, with timm's names for the reduced model and ``dense_`` before those of the dense one."""
        dense = {f"dense_{name}": value for name, value in asdict(self.dense).items() if name != "batch_size"}
        return {
            **asdict(self.reduced),
            **dense,
            "param_count": self.param_count,
            "gmacs": self.macs / 1e9,
            "dense_gmacs": self.dense_macs / 1e9,
            "mac_ratio": self.mac_ratio,
            "speedup": self.speedup,
            "realised_share": self.realised_share,
            "reduction_share": self.reduction_share,
            "rounds": self.rounds,
            "compiled": self.compiled,
        }


@torch.inference_mode()
def compare(
    dense: nn.Module,
    reduced: nn.Module,
    images: Tensor,
    *,
    parts: Iterable[str] = (),
    rounds: int = 15,
    warmup: int = 3,
    compiled: bool = False,
) -> Comparison:
    """Time two models on the same input, one after the other in every round.

    Args:
        dense, reduced: on one device, in one precision; put into eval mode.
        images: (B, 3, H, W) on that device, in that precision.
        parts: names of modules of ``reduced`` whose share of the time is reported.
        rounds: measurements of each model.
        warmup: unmeasured runs of each model before.
        compiled: time both under ``torch.compile``, for this very shape. Forgets what was compiled before.

    Raises:
        ValueError: if rounds or warmup is too small.
    """
    if rounds < 1:
        raise ValueError(f"rounds must be 1 or more, got {rounds}")
    if compiled and warmup < 1:
        raise ValueError(f"warmup must be 1 or more, as the first run compiles, got {warmup}")
    if warmup < 0:
        raise ValueError(f"warmup must be 0 or more, got {warmup}")
    models = [dense.eval(), reduced.eval()]
    size = tuple(images.shape[1:])
    share = time_share(reduced, images, parts) if parts else 0.0
    peaks = [peak_memory(model, images) for model in models]
    run: list[Any] = models
    if compiled:
        # graphs of other shapes count against torch's limit of recompilations, and past it a model would run eagerly
        torch.compiler.reset()
        run = [torch.compile(model, dynamic=False) for model in models]
    times = _in_turns(run, images, rounds, warmup)
    return Comparison(
        dense=_timing(len(images), times[0], peaks[0]),
        reduced=_timing(len(images), times[1], peaks[1]),
        dense_macs=count_macs(dense, size)[""],
        macs=count_macs(reduced, size)[""],
        param_count=count_parameters(reduced),
        rounds=rounds,
        compiled=compiled,
        reduction_share=share,
    )


def _in_turns(models: list[Any], images: Tensor, rounds: int, warmup: int) -> list[list[float]]:
    """Milliseconds of every round, for each model."""
    for model in models:
        for _ in range(warmup):
            model(images)
    times: list[list[float]] = [[] for _ in models]
    for _ in range(rounds):
        for model, measured in zip(models, times, strict=True):
            start = _now(images)
            model(images)
            measured.append(1e3 * (_now(images) - start))
    return times


@torch.inference_mode()
def time_share(model: nn.Module, images: Tensor, parts: Iterable[str], *, rounds: int = 5) -> float:
    """Share of the forward time spent inside the named modules: median over rounds, after one warm-up.

    The modules must not lie in one another, or time would count twice.
    """
    inside = [0.0]
    shares = []

    def enter(module: nn.Module, args: Any) -> None:
        inside[0] -= _now(images)

    def leave(module: nn.Module, args: Any, output: Any) -> None:
        inside[0] += _now(images)

    with ExitStack() as hooks:
        for name in parts:
            part = model.get_submodule(name)
            hooks.callback(part.register_forward_pre_hook(enter).remove)
            hooks.callback(part.register_forward_hook(leave).remove)
        for _ in range(rounds + 1):
            inside[0] = 0.0
            start = _now(images)
            model(images)
            shares.append(inside[0] / (_now(images) - start))
    return statistics.median(shares[1:])


def peak_memory(model: nn.Module, images: Tensor) -> float:
    """The most that one forward pass holds at once, beyond what was there before, in 1e6 bytes."""
    if images.is_cuda:
        before = torch.cuda.memory_allocated(images.device)
        torch.cuda.reset_peak_memory_stats(images.device)
        model(images)
        return (torch.cuda.max_memory_allocated(images.device) - before) / 1e6
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as record:
        model(images)
    held = peak = 0
    for event in sorted(record.events() or (), key=lambda event: event.time_range.start):
        held += event.self_cpu_memory_usage
        peak = max(peak, held)
    return peak / 1e6


def _now(images: Tensor) -> float:
    """Seconds, once the device of the images has done all that was asked of it."""
    if images.device.type != "cpu":
        torch.accelerator.synchronize(images.device)
    return time.perf_counter()


def _timing(batch: int, measured: list[float], peak: float) -> Timing:
    median = statistics.median(measured)
    low, _, high = statistics.quantiles(measured, n=4, method="inclusive") if len(measured) > 1 else (median, median, median)
    return Timing(batch, median, high - low, 1e3 * batch / median, peak)
