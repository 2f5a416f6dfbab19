"""How fast a model is beside another one: warmed up, interleaved, synchronised, with the spread."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from batvit.checks import check_interval
from batvit.data.loading import data_config, placed
from batvit.measure.clock import (
    Quartiles,
    all_steady,
    in_turns,
    is_steady,
    peak_memory,
    quartiles,
    speedup,
    time_share,
)
from batvit.measure.compiling import explained_compiler
from batvit.measure.macs import count_macs, count_parameters

COMPILE_MODES = ("default", "reduce-overhead", "max-autotune")
# all modes but the first record CUDA graphs in the second run, and play them from the third
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
    """what one forward pass allocates at most, beyond the weights and the input, in 1e6 bytes;
    None if that is not seen"""

    @classmethod
    def from_times(cls, batch_size: int, times: Sequence[float], peak: float | None) -> "Timing":
        """Return the timing of something from its milliseconds in each round."""
        spread = quartiles(times)
        return cls(
            batch_size=batch_size,
            step_time=spread.median,
            step_time_iqr=spread.range,
            samples_per_sec=1e3 * batch_size / spread.median,
            peak_memory_mb=peak,
        )


@dataclass(frozen=True)
class SpeedComparison:
    """A model beside the dense one, measured in the same run.

    Examples:
        As in the example of :func:`benchmark`:

        >>> speed.dense.batch_size, speed.rounds >= 3
        (1, True)
        >>> round(speed.mac_ratio, 2)
        1.69
    """

    dense: Timing
    reduced: Timing
    dense_macs: int
    macs: int
    param_count: int
    rounds: int
    """as measured: more than asked for, where times spread too much"""
    speedups: Quartiles
    """of the speed-ups of single rounds, as :func:`batvit.measure.clock.speedup` gives them"""
    reduction_share: float | None = None
    """share of the reduced model's time spent in the named modules, 0 to 1; None if it ran
    compiled, or none is named"""
    compile_mode: str | None = None
    """of ``torch.compile``; None if both models ran eagerly"""
    unsteady: bool = False
    """whether the speed-up is no better known than within 5 %, so that nothing is ranked by it"""
    when_compiled: "SpeedComparison | None" = None
    """of an eager comparison: the same two models compiled, timed in the same rounds"""

    @property
    def mode(self) -> str:
        """The way both ran: eager or compiled."""
        return "eager" if self.compile_mode is None else "compiled"

    @property
    def modes(self) -> "tuple[SpeedComparison, ...]":
        """The comparison itself, and the compiled one if there is one."""
        return (self,) if self.when_compiled is None else (self, self.when_compiled)

    @property
    def fastest_dense(self) -> "SpeedComparison":
        """The honest baseline: the one of the modes in which dense takes less time."""
        return min(self.modes, key=lambda comparison: comparison.dense.step_time)

    @property
    def speedup(self) -> float:
        """Median over the rounds of the time of dense over the time of reduced."""
        return self.speedups.median

    @property
    def mac_ratio(self) -> float:
        """Dense MACs over reduced MACs: what the speed-up would be if time were MACs."""
        return self.dense_macs / self.macs

    @property
    def realised_share(self) -> float:
        """Speed-up over MAC ratio."""
        return self.speedup / self.mac_ratio

    @property
    def summary(self) -> str:
        """The speed-up over the faster of the two dense models, in one line."""
        best = self.fastest_dense
        times = []
        for comparison in sorted(self.modes, key=lambda mode: mode.dense.step_time):
            times.append(f"{comparison.dense.step_time:.1f} ms {comparison.mode}")
        return (
            f"batch {best.dense.batch_size}: dense is faster {best.mode} "
            f"({' against '.join(times)}); there reduced is {best.speedup:.2f} times as fast, "
            f"{best.realised_share:.2f} of the MAC ratio; "
            f"reduction {100 * (self.reduction_share or 0.0):.1f} % of the eager time"
        )

    def to_dict(self) -> dict[str, Any]:
        """Return flat values of this mode alone, with timm's names for the reduced model.

        The dense model's have ``dense_`` before them. Of compiled models the memory and the share
        of the reduction are None: they are measured eagerly alone.
        """
        dense = asdict(self.dense)
        del dense["batch_size"]
        return {
            **asdict(self.reduced),
            **{f"dense_{name}": value for name, value in dense.items()},
            "param_count": self.param_count,
            "gmacs": self.macs / 1e9,
            "dense_gmacs": self.dense_macs / 1e9,
            "mac_ratio": self.mac_ratio,
            "speedup": self.speedup,
            "speedup_low": self.speedups.low,
            "speedup_high": self.speedups.high,
            "unsteady": self.unsteady,
            "realised_share": self.realised_share,
            "reduction_share": self.reduction_share,
            "rounds": self.rounds,
            "mode": self.mode,
            "compiled": self.compile_mode is not None,
            "compile_mode": self.compile_mode,
        }


@torch.inference_mode()
@explained_compiler()
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
) -> SpeedComparison:
    """Time two models on the same input, one after the other in every round.

    On Linux this changes how the whole process allocates memory, for good: see
    :func:`batvit.measure.clock.keep_freed_memory`.

    Args:
        dense, reduced: on one device, in one precision; put into eval mode.
        images: (B, 3, H, W) on that device, in that precision.
        parts: names of modules of ``reduced`` whose share of the time is reported. In a reduction's
            module lies all that is done at its site; not what gives a grid back at the end, nor
            what blocks with rotary tables of their own merge.
        rounds: measurements of each model; up to three times as many where the speed-up would not
            be known within 5 % (:func:`batvit.measure.clock.is_steady`).
        warmup: unmeasured runs of each model before; 3 at least where the compile mode records
            CUDA graphs.
        compiled: time both under ``torch.compile`` too, for this very shape, as
            :attr:`SpeedComparison.when_compiled`: in every round dense and reduced run eagerly,
            then compiled. Forgets what was compiled before.
        compile_mode: of ``torch.compile``.
        macs: (dense, reduced) of one input, for what cannot be counted, as another engine's model;
            counted by default.
        param_count: of ``reduced``; counted by default.

    Returns:
        What was measured eagerly, and in it what was measured compiled.

    Raises:
        ValueError: if rounds, warmup or a number of MACs is too small, or ``torch.compile`` does
            not work here.

    Examples:
        >>> dense = timm.create_model("vit_tiny_patch16_224", img_size=64, depth=4)
        >>> reduced = batvit.patch(copy.deepcopy(dense), keep_rate=0.5)
        >>> speed = batvit.benchmark(dense, reduced, torch.zeros(1, 3, 64, 64), rounds=3)
        >>> print(speed.summary)  # doctest: +ELLIPSIS
        batch 1: dense is faster eager (... ms eager); there reduced is ... times as fast, ...
    """
    check_rounds(rounds, warmup, compiled=compiled)
    dense.eval()
    reduced.eval()
    dense_macs, reduced_macs = _macs(dense, reduced, images) if macs is None else _checked(macs)
    share = time_share(reduced, images, parts) if parts else None
    dense_peak = peak_memory(dense, images) or None
    reduced_peak = peak_memory(reduced, images) or None
    runs: list[Callable[[], Any]] = [partial(dense, images), partial(reduced, images)]
    if compiled:
        # graphs of other shapes count against torch's limit of recompilations, and past it a model
        # would run eagerly
        torch.compiler.reset()
        for model in (dense, reduced):
            run = torch.compile(model, dynamic=False, mode=compile_mode)
            runs.append(partial(run, images))
    warmup = enough_warmup(warmup, compile_mode if compiled else None)
    times = in_turns(runs, images, rounds=rounds, warmup=warmup, enough=_all_steady)
    batch = len(images)
    eager = SpeedComparison(
        dense=Timing.from_times(batch, times[0], dense_peak),
        reduced=Timing.from_times(batch, times[1], reduced_peak),
        dense_macs=dense_macs,
        macs=reduced_macs,
        param_count=count_parameters(reduced) if param_count is None else param_count,
        rounds=len(times[0]),
        speedups=speedup(times[0], times[1]),
        unsteady=not is_steady(times[0], times[1]),
        reduction_share=share,
    )
    if not compiled:
        return eager
    return replace(eager, when_compiled=_compiled(eager, times[2], times[3], compile_mode))


def noise(model: nn.Module, batch_size: int) -> Tensor:
    """Return a batch of noise (B, 3, H, W), always the same, as a model takes pictures.

    Speed does not depend on what pictures show.
    """
    size = data_config(model)["input_size"]
    generator = torch.Generator().manual_seed(0)
    return placed(torch.randn(batch_size, *size, generator=generator), model)


def check_rounds(rounds: int, warmup: int, *, compiled: bool) -> None:
    """Refuse too few rounds or unmeasured runs.

    Raises:
        ValueError, TypeError: naming the number.
    """
    check_interval("rounds", rounds, "[1, inf)", kind=int)
    check_interval("warmup", warmup, "[0, inf)", kind=int)
    if compiled and warmup < 1:
        raise ValueError(f"warmup must be 1 or more, as the first run compiles, got {warmup}")


def enough_warmup(warmup: int, compile_mode: str | None) -> int:
    """Return how often to run unmeasured: CUDA graphs are to be played from the first round on."""
    if compile_mode in (None, COMPILE_MODES[0]):
        return warmup
    return max(warmup, GRAPH_WARMUP)


def _checked(macs: tuple[int, int]) -> tuple[int, int]:
    if min(macs) < 1:
        raise ValueError(
            f"macs must be two counts of 1 or more, (dense, reduced), got {macs}; leave them out "
            "to count them"
        )
    return macs


def _all_steady(times: Sequence[Sequence[float]]) -> bool:
    """Return whether the first two runs are steady, and the two behind them, which are compiled."""
    pairs = [times[i : i + 2] for i in range(0, len(times), 2)]
    return all(all_steady(pair) for pair in pairs)


def _macs(dense: nn.Module, reduced: nn.Module, images: Tensor) -> tuple[int, int]:
    size = tuple(images.shape[1:])
    return count_macs(dense, size)[""], count_macs(reduced, size)[""]


def _compiled(
    eager: SpeedComparison, dense: Sequence[float], reduced: Sequence[float], mode: str
) -> SpeedComparison:
    """Return the comparison of the same two models compiled; memory and shares are eager alone."""
    batch = eager.dense.batch_size
    return replace(
        eager,
        dense=Timing.from_times(batch, dense, None),
        reduced=Timing.from_times(batch, reduced, None),
        speedups=speedup(dense, reduced),
        unsteady=not is_steady(dense, reduced),
        reduction_share=None,
        compile_mode=mode,
    )
