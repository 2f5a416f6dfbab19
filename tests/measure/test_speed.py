"""Two models side by side. What a clock says is never asserted, only what must hold anyway."""

import shutil

import pytest
import torch
from timm.models.vision_transformer import VisionTransformer
from torch import nn

import batvit
from batvit.measure import speed
from batvit.measure.clock import Quartiles
from batvit.measure.speed import SpeedComparison, Timing, benchmark, noise

pytestmark = pytest.mark.usefixtures("quiet")
no_cuda = pytest.mark.skipif(
    not torch.cuda.is_available(), reason="no CUDA device: timing and memory on it are not measured"
)
no_compiler = pytest.mark.skipif(
    not (shutil.which("g++") or shutil.which("clang++")),
    reason="torch's default backend needs a C++ compiler",
)


def vit():
    return VisionTransformer(
        img_size=64, patch_size=16, embed_dim=24, depth=4, num_heads=3, num_classes=5
    )


def images(batch=2):
    return torch.randn(batch, 3, 64, 64, generator=torch.Generator().manual_seed(0))


class Counting(nn.Module):
    """Notes how it is called."""

    def __init__(self, log, name):
        super().__init__()
        self.linear = nn.Linear(4, 4)
        self.log, self.name = log, name

    def forward(self, x):
        if not x.is_meta:
            self.log.append((self.name, self.training, torch.is_inference_mode_enabled()))
        return self.linear(x)


def test_a_model_beside_itself_does_the_same_work():
    model = vit()
    found = benchmark(model, model, images(), rounds=3, warmup=1)
    assert (found.mac_ratio, found.macs, found.reduction_share) == (1, found.dense_macs, None)
    assert found.realised_share == found.speedup
    # torch 2.10 sees a few hundred bytes more or less
    assert found.dense.peak_memory_mb == pytest.approx(found.reduced.peak_memory_mb, rel=0.02)
    assert found.reduced.peak_memory_mb > 0
    assert found.param_count == sum(p.numel() for p in model.parameters())


def test_a_reduced_model_beside_the_dense_one():
    dense, reduced = vit(), batvit.patch(vit(), tokens=(4,), blocks=(1,))
    found = benchmark(dense, reduced, images(3), parts=["blocks.1.reduce"], rounds=4, warmup=1)
    assert found.mac_ratio == batvit.info(reduced).mac_ratio > 1
    assert 0 < found.reduction_share < 1
    for timing in (found.dense, found.reduced):
        assert timing.batch_size == 3
        assert timing.samples_per_sec == pytest.approx(3000 / timing.step_time)
        assert timing.step_time_iqr >= 0
    fields = found.to_dict()
    assert {"batch_size", "step_time", "samples_per_sec", "peak_memory_mb"} <= set(fields)
    assert {
        "param_count",
        "gmacs",
        "mac_ratio",
        "speedup",
        "realised_share",
        "reduction_share",
        "rounds",
    } <= set(fields)
    assert {name for name in fields if name.startswith("dense_")} == {
        f"dense_{name}"
        for name in ("step_time", "step_time_iqr", "samples_per_sec", "peak_memory_mb", "gmacs")
    }
    assert fields["realised_share"] == fields["speedup"] / fields["mac_ratio"]


def test_models_take_turns_in_eval_mode_after_a_warm_up():
    log = []
    dense, reduced = Counting(log, "dense"), Counting(log, "reduced")
    benchmark(
        dense.train(), reduced.train(), torch.randn(2, 4), parts=["linear"], rounds=3, warmup=2
    )
    assert {entry[1:] for entry in log} == {(False, True)}
    turns = [name for name, *_ in log]
    # the share and the memory, then the warm-ups, then the rounds
    assert turns[-10:] == ["dense"] * 2 + ["reduced"] * 2 + ["dense", "reduced"] * 3


def test_numbers_of_a_comparison_are_those_of_its_timings():
    dense, reduced = Timing(8, 30.0, 1.0, 266.7, 5.0), Timing(8, 20.0, 1.0, 400.0, 4.0)
    # the median of the ratios, which need not be the ratio of the medians
    found = SpeedComparison(dense, reduced, 4000, 2000, 10, 5, Quartiles(1.3, 1.4, 1.6), 0.1)
    assert (found.speedup, found.mac_ratio, found.realised_share) == (1.4, 2, 0.7)
    fields = found.to_dict()
    assert (fields["speedup_low"], fields["speedup_high"]) == (1.3, 1.6)
    assert (fields["mode"], fields["compiled"], fields["compile_mode"]) == ("eager", False, None)
    assert found.modes == (found,)
    assert found.fastest_dense is found


@pytest.mark.parametrize(("milliseconds", "fastest"), [(20.0, "compiled"), (40.0, "eager")])
def test_the_honest_baseline_is_the_faster_dense(milliseconds, fastest):
    def comparison(dense, **settings):
        timings = Timing(8, dense, 1.0, 8000 / dense, 5.0), Timing(8, 20.0, 1.0, 400.0, 4.0)
        return SpeedComparison(
            *timings,
            4000,
            2000,
            10,
            rounds=5,
            speedups=Quartiles(1.0, dense / 20.0, 2.0),
            reduction_share=0.1,
            **settings,
        )

    compiled = comparison(milliseconds, compile_mode="max-autotune")
    found = comparison(30.0, when_compiled=compiled)
    assert found.modes == (found, compiled)
    assert [each.mode for each in found.modes] == ["eager", "compiled"]
    assert found.fastest_dense.mode == fastest
    assert found.to_dict().keys() == compiled.to_dict().keys()
    assert compiled.to_dict()["compile_mode"] == "max-autotune"
    assert found.summary.startswith(f"batch 8: dense is faster {fastest} (")
    assert "reduction 10.0 % of the eager time" in found.summary


def test_a_speedup_is_the_median_over_rounds_in_both_modes(monkeypatch):
    times = [[10.0, 20.0, 90.0], [5.0, 20.0, 30.0], [8.0, 8.0, 8.0], [4.0, 2.0, 1.0]]
    monkeypatch.setattr(speed, "in_turns", lambda *a, **k: times)
    model = nn.Linear(4, 4)
    found = benchmark(model, model, torch.randn(1, 4), compiled=True)
    assert (found.speedup, found.speedups.low, found.speedups.high) == (2.0, 1.5, 2.5)
    assert (found.dense.step_time, found.reduced.step_time) == (20.0, 20.0)
    assert found.to_dict()["speedup"] == 2.0
    assert found.when_compiled.speedup == 4.0


def test_what_spreads_too_much_is_marked_in_both_modes(monkeypatch):
    even = [10.0] * 12
    uneven = [10.0, 30.0] * 6
    monkeypatch.setattr(speed, "in_turns", lambda *a, **k: [even, uneven, even, even])
    model = nn.Linear(4, 4)
    found = benchmark(model, model, torch.randn(1, 4), compiled=True)
    assert (found.unsteady, found.when_compiled.unsteady, found.rounds) == (True, False, 12)
    assert found.to_dict()["unsteady"] is True
    assert found.when_compiled.to_dict()["unsteady"] is False


def test_the_spread_of_one_round_is_nothing_and_of_two_lies_between_them():
    model = nn.Linear(4, 4)
    found = benchmark(model, model, torch.randn(1, 4), rounds=1, warmup=0)
    assert found.dense.step_time_iqr == 0
    assert found.speedups == (found.speedup,) * 3
    found = benchmark(model, model, torch.randn(1, 4), rounds=2, warmup=0).dense
    assert 0 <= found.step_time_iqr <= found.step_time


def test_too_few_rounds_are_refused():
    model = nn.Linear(4, 4)
    for settings, said in (
        ({"rounds": 0}, r"rounds must lie in \[1, inf\), got 0"),
        ({"warmup": -1}, r"warmup must lie in \[0, inf\), got -1"),
        (
            {"warmup": 0, "compiled": True},
            "warmup must be 1 or more, as the first run compiles, got 0",
        ),
    ):
        with pytest.raises(ValueError, match=said):
            benchmark(model, model, torch.randn(1, 4), **settings)


class OtherEngine(nn.Module):
    """Runs outside torch, as an exported file does, without parameters, and not on meta."""

    def forward(self, x):
        return torch.from_numpy(x.numpy().clip(0))


def test_what_cannot_be_counted_is_compared_by_the_counts_given():
    found = benchmark(
        OtherEngine(), OtherEngine(), images(), rounds=2, warmup=0, macs=(300, 100), param_count=7
    )
    assert (found.dense_macs, found.macs, found.param_count, found.mac_ratio) == (300, 100, 7, 3)
    # numpy's memory is not torch's
    assert found.dense.peak_memory_mb is found.reduced.peak_memory_mb is None
    assert benchmark(OtherEngine(), OtherEngine(), images(), rounds=1, macs=(1, 1)).param_count == 0
    with pytest.raises(
        ValueError,
        match=r"macs must be two counts of 1 or more, \(dense, reduced\), got \(300, 0\)",
    ):
        benchmark(OtherEngine(), OtherEngine(), images(), macs=(300, 0))


@pytest.mark.unchecked
@no_compiler
def test_compiled_models_are_compared_beside_the_eager_ones():
    # a shape checker inside a graph would break it
    dense, reduced = nn.Linear(8, 8), nn.Linear(8, 4)
    found = benchmark(dense, reduced, torch.randn(2, 8), rounds=2, warmup=1, compiled=True)
    assert [each.mode for each in found.modes] == ["eager", "compiled"]
    assert found.when_compiled.compile_mode == "default"
    assert found.when_compiled.when_compiled is None
    assert found.when_compiled.mac_ratio == found.mac_ratio == 2
    # what was not measured compiled is not said of it
    fields, eager = found.when_compiled.to_dict(), found.to_dict()
    for name in ("peak_memory_mb", "dense_peak_memory_mb"):
        assert fields[name] is None
        assert eager[name] is not None
    assert fields["reduction_share"] is None


class Turn(nn.Module):
    """Notes that it runs, unless it is being compiled."""

    def __init__(self, log, width):
        super().__init__()
        self.linear = nn.Linear(4, width)
        self.log = log

    def forward(self, x):
        if not x.is_meta and not torch.compiler.is_compiling():
            self.log.append(f"eager {self.linear.out_features}")
        return self.linear(x)


@pytest.mark.unchecked
def test_all_four_models_take_turns(noted):
    log, modes = noted
    benchmark(Turn(log, 3), Turn(log, 2), torch.randn(2, 4), rounds=3, warmup=2, compiled=True)
    turns = ["eager 3", "eager 2", "compiled 3", "compiled 2"]
    assert log[-20:] == [turn for turn in turns for _ in range(2)] + turns * 3
    assert modes == ["default"] * 2


@pytest.mark.unchecked
@pytest.mark.parametrize(
    ("mode", "given", "runs"),
    [("default", 1, 1), ("reduce-overhead", 1, 3), ("max-autotune", 5, 5)],
)
def test_graphs_are_recorded_before_the_clock_runs(noted, mode, given, runs):
    log, modes = noted
    benchmark(
        Turn(log, 3),
        Turn(log, 2),
        torch.randn(2, 4),
        rounds=1,
        warmup=given,
        compiled=True,
        compile_mode=mode,
    )
    assert log.count("compiled 3") == log.count("compiled 2") == runs + 1
    assert modes == [mode] * 2


@pytest.mark.unchecked
def test_each_shape_is_compiled_anew(monkeypatch):
    # past its limit of recompilations torch would run the model eagerly, and warn at most
    compiled, graphs = torch.compile, []

    def backend(graph, inputs):
        graphs.append(inputs[-1].shape)
        return graph.forward

    monkeypatch.setattr(
        torch, "compile", lambda model, **settings: compiled(model, backend=backend, **settings)
    )
    model = nn.Sequential(nn.Linear(4, 4), nn.ReLU())
    # timm's optimisers raise the limit to a million when they are imported
    with torch._dynamo.config.patch(recompile_limit=2):
        for batch in range(2, 6):
            graphs.clear()
            benchmark(model, model, torch.randn(batch, 4), rounds=1, warmup=1, compiled=True)
            assert len(graphs) >= 1


@no_cuda
def test_on_a_gpu_the_clock_waits_for_it():
    dense, reduced = vit().cuda(), batvit.patch(vit(), tokens=(4,), blocks=(1,)).cuda()
    found = benchmark(dense, reduced, images(8).cuda(), parts=["blocks.1.reduce"], rounds=3)
    assert 0 < found.reduction_share < 1
    assert found.reduced.peak_memory_mb > 0


def test_noise_is_always_the_same_and_fits_the_model():
    model = vit().bfloat16()
    first, second = noise(model, 3), noise(model, 3)
    assert torch.equal(first, second)
    assert (first.shape, first.dtype) == ((3, 3, 64, 64), torch.bfloat16)
