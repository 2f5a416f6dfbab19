"""Time and memory of any module: interleaved rounds, the definition of a speed-up, peak memory.

Whatever is timed here first calls :func:`keep_freed_memory`, which changes how the whole process
allocates memory on Linux.
"""

import ctypes
import math
import statistics
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.profiler import ProfilerActivity, profile

# glibc's M_TRIM_THRESHOLD and M_TOP_PAD, in bytes, and M_MMAP_MAX: nothing lies outside of the heap
MALLOC_OPTIONS = {-1: 2**31 - 1, -2: 2**26, -4: 0}


# what spreads more is measured again, up to so many times as many rounds as asked for
REPEATS = 3
# fewer rounds are a quick look: nothing can be said of how well they know a median
FEWEST_ROUNDS = 6
UNSTEADY = 0.05
"""how far the limits of a median's 95 % interval may lie from it, relative to it"""


class Quartiles(NamedTuple):
    """The middle half of some values, and the value in the middle."""

    low: float
    median: float
    high: float

    @property
    def range(self) -> float:
        """Distance of the quartiles."""
        return self.high - self.low


def quartiles(values: Sequence[float]) -> Quartiles:
    """Return the lower quartile, the median and the upper quartile; one value is all three."""
    if len(values) == 1:
        return Quartiles(values[0], values[0], values[0])
    return Quartiles(*statistics.quantiles(values, n=4, method="inclusive"))


def speedup(dense: Sequence[float], reduced: Sequence[float]) -> Quartiles:
    """Return the speed-up of a reduced model, and its spread: the one definition in this library.

    In each round both were timed one after the other, so the ratio of a round holds though the
    machine becomes slower or faster from round to round. The median of these ratios is the
    speed-up, their quartiles are its spread.

    Args:
        dense: time of the dense model in each round.
        reduced: time of the reduced model in the same rounds.

    >>> speedup([10.0, 20.0, 30.0], [5.0, 10.0, 10.0]).median
    2.0
    """
    return quartiles(_ratios(dense, reduced))


def is_steady(dense: Sequence[float], reduced: Sequence[float]) -> bool:
    """Return whether a speed-up is known well enough to be ranked by: within 5 %.

    Args:
        dense: time of the dense model in each round.
        reduced: time of the reduced model in the same rounds.
    """
    return median_is_known(_ratios(dense, reduced))


def median_is_known(values: Sequence[float]) -> bool:
    """Return whether the 95 % interval of the median of some values lies within 5 % of it.

    It is that of the sign test, by the order of the values, whatever their distribution; fewer than
    six values have none. Beside another process that takes the cores it is wide.
    """
    place = _place_of_limit(len(values))
    if place < 0:
        return False
    median = statistics.median(values)
    ordered = sorted(values)
    low = ordered[place]
    high = ordered[-1 - place]
    return max(median - low, high - median) <= UNSTEADY * median


def _place_of_limit(number: int) -> int:
    """Return the place, from either end, of a limit of the 95 % interval of a median; -1 if none.

    As many of the values lie below the true median as a fair coin shows heads: beyond the limits
    are so few that this happens in at most 2.5 % of the cases on each side.
    """
    place = -1
    chance = 0.0
    while True:
        chance += math.comb(number, place + 1) / 2**number
        if chance > 0.025:
            return place
        place += 1


def all_steady(times: Sequence[Sequence[float]], baseline: int = 0) -> bool:
    """Return whether one of several runs is steady, and the speed-ups of all others over it."""
    others = [measured for i, measured in enumerate(times) if i != baseline]
    if not median_is_known(times[baseline]):
        return False
    return all(is_steady(times[baseline], measured) for measured in others)


def in_turns(
    runs: Sequence[Callable[[], Any]],
    x: Tensor,
    *,
    rounds: int,
    warmup: int,
    enough: Callable[[list[list[float]]], bool] = lambda times: True,
) -> list[list[float]]:
    """Time several runs in turns: first each warms up, then in every round each runs once.

    Where that is not enough, as many rounds are added, twice at most; to fewer than six none.

    Calls :func:`keep_freed_memory`, for the whole process and for good.

    Args:
        runs: what is timed; what they return is thrown away.
        x: any tensor on the device that they run on.
        rounds: measurements of each.
        warmup: unmeasured runs of each before.
        enough: whether times will do, such as :func:`all_steady`.

    Returns:
        Milliseconds of every round, for each of the runs.
    """
    keep_freed_memory()
    for run in runs:
        for _ in range(warmup):
            _begin_step(x)
            run()
    times: list[list[float]] = [[] for _ in runs]
    for _ in range(REPEATS):
        for _ in range(rounds):
            for run, measured in zip(runs, times, strict=True):
                _begin_step(x)
                start = _now(x)
                run()
                measured.append(1e3 * (_now(x) - start))
        if rounds < FEWEST_ROUNDS or enough(times):
            break
    return times


def keep_freed_memory() -> None:
    """Let glibc keep what is freed for what is allocated next, instead of giving it back.

    It holds for the whole process from now on, and cannot be taken back; to call it again changes
    nothing. With another C library nothing is done.

    Without it page faults come and go from run to run, up to a third of the time on a CPU. A dense
    model has more of them, as its activations are larger, so speed-ups would look better than they
    are.
    """
    if sys.platform != "linux":
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return
    for option, value in MALLOC_OPTIONS.items():
        mallopt(option, value)


@torch.inference_mode()
def time_share(model: nn.Module, images: Tensor, parts: Iterable[str], *, rounds: int = 5) -> float:
    """Measure the share of the forward time spent inside the named modules.

    The median over rounds, after one warm-up.

    Calls :func:`keep_freed_memory`, for the whole process and for good. The modules must not lie in
    one another, or time would count twice.

    Raises:
        AttributeError: naming a part that the model does not have.
    """
    keep_freed_memory()
    inside = 0.0

    def enter(module: nn.Module, args: Any) -> None:
        nonlocal inside
        inside -= _now(images)

    def leave(module: nn.Module, args: Any, output: Any) -> None:
        nonlocal inside
        inside += _now(images)

    shares = []
    with ExitStack() as hooks:
        for name in parts:
            part = model.get_submodule(name)
            hooks.callback(part.register_forward_pre_hook(enter).remove)
            hooks.callback(part.register_forward_hook(leave).remove)
        for _ in range(rounds + 1):
            inside = 0.0
            start = _now(images)
            model(images)
            shares.append(inside / (_now(images) - start))
    return statistics.median(shares[1:])


def peak_memory(model: nn.Module, x: Tensor, **arguments: Any) -> float:
    """Measure the most that torch holds at once in one forward pass, beyond what was there before.

    Not seen are: what a module allocates elsewhere, as in numpy or in another engine; on a CPU what
    an operation frees before it ends; and anything on devices that are neither a CPU nor a CUDA
    GPU. On a GPU the module runs twice, because what its libraries allocate in their first run, and
    keep, does not count.

    Args:
        model: any module, with parameters or without.
        x: its input.
        arguments: what else its forward needs, by name.

    Returns:
        Units of 1e6 bytes; 0 if nothing is seen.
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
    held = 0
    peak = 0
    for event in sorted(record.events() or (), key=lambda event: event.time_range.start):
        held += event.self_cpu_memory_usage
        peak = max(peak, held)
    return peak / 1e6


def compiled_alone(
    model: nn.Module, x: Tensor, arguments: dict[str, Any], mode: str, *, fullgraph: bool = False
) -> Callable[[], Any]:
    """Compile one call of a module, for this input and no other.

    Args:
        model: any module.
        x: its input.
        arguments: what else its forward needs, by name.
        mode: of ``torch.compile``.
        fullgraph: refuse, in the first run, a call that is not one graph.
    """

    def run() -> Any:
        return model(x, **arguments)

    # torch keeps what it compiled by code object, looks through all of it at every call, and gives
    # up past a limit: each call gets a code object of its own
    shape = "_".join(str(size) for size in x.shape)
    run.__code__ = run.__code__.replace(co_name=f"run_{shape}")
    compiled: Callable[[], Any] = torch.compile(run, dynamic=False, mode=mode, fullgraph=fullgraph)
    return compiled


def _ratios(dense: Sequence[float], reduced: Sequence[float]) -> list[float]:
    """Return the speed-up of each round."""
    ratios = []
    for dense_time, reduced_time in zip(dense, reduced, strict=True):
        ratios.append(dense_time / reduced_time)
    return ratios


def _begin_step(x: Tensor) -> None:
    """Tell CUDA graphs that the last run's outputs, whose memory they reuse, are not needed."""
    if x.is_cuda:
        torch.compiler.cudagraph_mark_step_begin()


def _now(x: Tensor) -> float:
    """Return seconds, once the device of a tensor has done all that was asked of it."""
    if x.device.type != "cpu":
        torch.accelerator.synchronize(x.device)
    return time.perf_counter()
