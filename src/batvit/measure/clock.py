"""The clock and the memory of any module: what is compared in batvit.benchmark is measured here."""

import ctypes
import statistics
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from functools import cache
from types import FunctionType
from typing import Any

import torch
from torch import Tensor, nn
from torch.profiler import ProfilerActivity, profile

# glibc's M_TRIM_THRESHOLD and M_TOP_PAD, in bytes, and M_MMAP_MAX: nothing lies outside of the heap
MALLOC = {-1: 2**31 - 1, -2: 2**26, -4: 0}


def in_turns(
    runs: Sequence[Callable[[], Any]], x: Tensor, *, rounds: int, warmup: int
) -> list[list[float]]:
    """Milliseconds of every round, for each of the runs: first each warms up, then all take turns.

    Args:
        runs: what is timed; what they return is thrown away.
        x: any tensor on the device that they run on.
        rounds: measurements of each.
        warmup: unmeasured runs of each before.
    """
    keep_freed_memory()
    for run in runs:
        for _ in range(warmup):
            _begin(x)
            run()
    times: list[list[float]] = [[] for _ in runs]
    for _ in range(rounds):
        for run, measured in zip(runs, times, strict=True):
            _begin(x)
            start = _now(x)
            run()
            measured.append(1e3 * (_now(x) - start))
    return times


@cache
def keep_freed_memory() -> None:
    """Let glibc keep what is freed for what is allocated next, instead of handing it back to the system.

    Page faults would come and go from run to run, up to a third of the time on a CPU, and more of them for a dense model, whose
    activations are larger: speed-ups would look better than they are. With another C library nothing is done.
    """
    tune = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if tune is not None:
        for option, value in MALLOC.items():
            tune(option, value)


@torch.inference_mode()
def time_share(model: nn.Module, images: Tensor, parts: Iterable[str], *, rounds: int = 5) -> float:
    """Share of the forward time spent inside the named modules: median over rounds, after one warm-up.

    The modules must not lie in one another, or time would count twice.
    """
    keep_freed_memory()
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


def peak_memory(model: nn.Module, x: Tensor, **arguments: Any) -> float:
    """The most that torch holds at once in one forward pass, beyond what was there before, in 1e6 bytes; 0 if that is not seen.

    What a module allocates elsewhere, in numpy or in another engine, is not seen, nor on a processor what an operation frees
    before it ends, nor anything on devices that are neither a processor nor a GPU of CUDA. On a GPU the module runs twice: what
    its libraries allocate in their first run, and keep, does not count.

    Args:
        model: any module, with parameters or without.
        x: its input.
        arguments: what else its forward needs, by name.
    """
    if x.is_cuda:
        model(x, **arguments)
        before = torch.cuda.memory_allocated(x.device)
        torch.cuda.reset_peak_memory_stats(x.device)
        model(x, **arguments)
        return (torch.cuda.max_memory_allocated(x.device) - before) / 1e6
    if x.device.type != "cpu":
        return 0.0
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as record:
        model(x, **arguments)
    held = peak = 0
    for event in sorted(record.events() or (), key=lambda event: event.time_range.start):
        held += event.self_cpu_memory_usage
        peak = max(peak, held)
    return peak / 1e6


def compiled_alone(
    model: nn.Module, x: Tensor, arguments: dict[str, Any], mode: str, *, fullgraph: bool = False
) -> Callable[[], Any]:
    """One call of a module, compiled for this input and no other; refused, with ``fullgraph``, where it is not one graph.

    torch keeps what it compiled by code object, looks through all of it at every call, and gives up past a limit. Each call
    therefore gets a code object of its own.
    """

    def run() -> Any:
        return model(x, **arguments)

    code = run.__code__.replace(co_name=f"run_{'_'.join(map(str, x.shape))}")
    own = FunctionType(code, run.__globals__, code.co_name, None, run.__closure__)
    compiled: Callable[[], Any] = torch.compile(own, dynamic=False, mode=mode, fullgraph=fullgraph)
    return compiled


def quartiles(values: Sequence[float]) -> tuple[float, float, float]:
    """The lower quartile, the median and the upper quartile; of one value, three times the value."""
    if len(values) == 1:
        return values[0], values[0], values[0]
    low, median, high = statistics.quantiles(values, n=4, method="inclusive")
    return low, median, high


def _begin(x: Tensor) -> None:
    """Tell CUDA graphs, which reuse the memory of their outputs, that the last run's are no longer needed."""
    if x.is_cuda:
        torch.compiler.cudagraph_mark_step_begin()


def _now(x: Tensor) -> float:
    """Seconds, once the device of a tensor has done all that was asked of it."""
    if x.device.type != "cpu":
        torch.accelerator.synchronize(x.device)
    return time.perf_counter()
