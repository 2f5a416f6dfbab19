"""Speed and memory. What a clock says is never asserted, only what must hold whatever it says."""

import csv
import io
import platform
import shutil
import subprocess
import sys

import pytest
import torch
from timm.models.vision_transformer import VisionTransformer
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode

import batvit
from batvit.measure.clock import peak_memory, time_share
from batvit.measure.speed import (
    Comparison,
    Timing,
    as_csv,
    benchmark,
    time_block,
    token_counts,
)

no_cuda = pytest.mark.skipif(
    not torch.cuda.is_available(), reason="no CUDA device: timing and memory on it are not measured"
)
no_compiler = pytest.mark.skipif(
    not (shutil.which("g++") or shutil.which("clang++")),
    reason="torch's default backend needs a C++ compiler",
)


@pytest.fixture(autouse=True)
def _quiet(monkeypatch):
    # torch's profiler writes notes to standard error
    monkeypatch.setenv("KINETO_LOG_LEVEL", "99")
    yield
    torch.compiler.reset()


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


# page faults of a pass that allocates 128 MB, more than glibc would keep
FAULTS = """
import resource, torch
from batvit.measure.clock import keep_freed_memory
def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    torch.nn.functional.gelu(torch.ones(2**24)).sum()
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
before = min(faults() for _ in range(5))
keep_freed_memory()
after = [faults() for _ in range(10)]
print(before, max(after[5:]))
"""


@pytest.mark.skipif(
    platform.libc_ver()[0] != "glibc", reason="what is freed is kept by glibc alone"
)
def test_what_is_freed_is_kept_for_what_comes_next():
    # in a process of its own, whose heap nothing else has filled
    found = subprocess.run(
        [sys.executable, "-c", FAULTS], capture_output=True, text=True, check=True
    ).stdout
    before, after = map(int, found.split())
    assert after < before / 10


def test_a_model_beside_itself_does_the_same_work():
    model = vit()
    found = benchmark(model, model, images(), rounds=3, warmup=1)
    assert (found.mac_ratio, found.macs, found.reduction_share) == (1, found.dense_macs, None)
    assert found.realised_share == found.speedup
    assert found.dense.peak_memory_mb == found.reduced.peak_memory_mb > 0
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
    found = Comparison(
        dense, reduced, 4000, 2000, 10, rounds=5, speedup_quartiles=(1.4, 1.6), reduction_share=0.1
    )
    assert (found.speedup, found.mac_ratio, found.realised_share) == (1.5, 2, 0.75)
    fields = found.to_dict()
    assert (fields["speedup_low"], fields["speedup_high"]) == (1.4, 1.6)
    assert (fields["mode"], fields["compiled"], fields["compile_mode"]) == ("eager", False, None)
    assert found.modes == (found,)
    assert found.fastest_dense is found


@pytest.mark.parametrize(("milliseconds", "fastest"), [(20.0, "compiled"), (40.0, "eager")])
def test_the_honest_baseline_is_the_faster_dense(milliseconds, fastest):
    def comparison(dense, **settings):
        timings = Timing(8, dense, 1.0, 8000 / dense, 5.0), Timing(8, 20.0, 1.0, 400.0, 4.0)
        return Comparison(
            *timings,
            4000,
            2000,
            10,
            rounds=5,
            speedup_quartiles=(1.0, 2.0),
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


def test_the_spread_of_one_round_is_nothing_and_of_two_lies_between_them():
    model = nn.Linear(4, 4)
    found = benchmark(model, model, torch.randn(1, 4), rounds=1, warmup=0)
    assert found.dense.step_time_iqr == 0
    assert found.speedup_quartiles == (found.speedup, found.speedup)
    found = benchmark(model, model, torch.randn(1, 4), rounds=2, warmup=0).dense
    assert 0 <= found.step_time_iqr <= found.step_time


def test_too_few_rounds_are_refused():
    model = nn.Linear(4, 4)
    for settings, said in (
        ({"rounds": 0}, "rounds must be 1 or more, got 0"),
        ({"warmup": -1}, "warmup must be 0 or more, got -1"),
        (
            {"warmup": 0, "compiled": True},
            "warmup must be 1 or more, as the first run compiles, got 0",
        ),
    ):
        with pytest.raises(ValueError, match=said):
            benchmark(model, model, torch.randn(1, 4), **settings)


def test_a_part_takes_some_of_the_time_and_all_parts_take_most():
    model = nn.Sequential(nn.Linear(64, 64), nn.Linear(64, 64))
    x = torch.randn(8, 64)
    some, everything = (
        time_share(model, x, ["0"], rounds=3),
        time_share(model, x, ["0", "1"], rounds=3),
    )
    assert 0 < some < 1
    assert 0 < everything < 1
    assert time_share(model, x, [], rounds=1) == 0
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())


def test_a_part_that_does_not_exist_is_named_and_no_hook_stays():
    model = nn.Sequential(nn.Linear(4, 4))
    with pytest.raises(AttributeError, match="nowhere"):
        time_share(model, torch.randn(1, 4), ["0", "nowhere"])
    assert not model[0]._forward_hooks
    assert not model[0]._forward_pre_hooks


@torch.inference_mode()
def test_peak_memory_is_what_is_held_at_once():
    # the first layer's output lives until the activation has made its own
    model = nn.Sequential(nn.Linear(1000, 1000), nn.ReLU(), nn.Linear(1000, 10))
    assert peak_memory(model, torch.randn(10, 1000)) == 2 * 10 * 1000 * 4 / 1e6
    assert peak_memory(model, torch.randn(30, 1000)) == 2 * 30 * 1000 * 4 / 1e6


@torch.inference_mode()
def test_more_pictures_hold_more_memory():
    model = vit().eval()
    peaks = [peak_memory(model, images(batch)) for batch in (1, 2, 4)]
    assert peaks == sorted(set(peaks))


class Noted(nn.Module):
    """Notes that it runs, and gives back what it is given."""

    def __init__(self, log):
        super().__init__()
        self.log = log

    def forward(self, x):
        self.log.append("run")
        return x


class OtherEngine(nn.Module):
    """Runs outside torch, as an exported file does: it has no parameters, and cannot run on the meta device."""

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


@pytest.fixture
def noted(monkeypatch):
    """What runs compiled, by its output's last dimension, and every mode that was asked for."""
    compiled, log, modes = torch.compile, [], []

    def backend(graph, inputs, mode="default"):
        modes.append(mode)

        def run(*arguments):
            result = graph.forward(*arguments)
            log.append(f"compiled {result[0].shape[-1]}")
            return result

        return run

    monkeypatch.setattr(
        torch, "compile", lambda model, **settings: compiled(model, backend=backend, **settings)
    )
    return log, modes


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
    # past its limit of recompilations torch would run the model eagerly, and say so in a warning at most
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


class Taking(nn.Module):
    """Notes the number of tokens that it is given, and needs another argument."""

    def __init__(self, log):
        super().__init__()
        self.linear = nn.Linear(4, 4)
        self.log = log

    def forward(self, x, *, scale):
        if not torch.compiler.is_compiling():
            self.log.append((x.shape[1], self.training, torch.is_inference_mode_enabled()))
        return self.linear(x) * scale


def inputs(counts, batch=2):
    return [(torch.randn(batch, count, 4), {"scale": torch.ones(count, 1)}) for count in counts]


def test_numbers_of_tokens_take_turns_in_a_block():
    log = []
    found = time_block(Taking(log).train(), inputs((5, 3, 8), batch=3), rounds=4, warmup=2)
    assert {entry[1:] for entry in log} == {(False, True)}
    # the memory, then the warm-ups, then the rounds
    assert [count for count, *_ in log] == [5, 3, 8] + [5, 5, 3, 3, 8, 8] + [5, 3, 8] * 4
    assert [timing.batch_size for timing in found] == [3] * 3
    assert [timing.samples_per_sec for timing in found] == pytest.approx(
        [3000 / timing.step_time for timing in found]
    )
    peaks = [timing.peak_memory_mb for timing in found]
    assert 0 < peaks[1] < peaks[0] < peaks[2]


@pytest.mark.unchecked
def test_a_compiled_block_has_a_graph_for_each_number_of_tokens(noted):
    log, modes = noted
    counts = range(3, 9)
    # more graphs than torch keeps for one code object
    with torch._dynamo.config.patch(recompile_limit=2):
        time_block(Taking([]), inputs(counts), rounds=2, warmup=1, compile_mode="reduce-overhead")
    assert modes == ["reduce-overhead"] * len(counts)
    # three to record a graph, then the rounds
    assert log == ["compiled 4"] * 5 * len(counts)


@pytest.mark.unchecked
@no_compiler
def test_a_block_is_compiled():
    found = time_block(
        vit().blocks[1],
        [(torch.randn(2, count, 24), {}) for count in (5, 8)],
        rounds=2,
        compile_mode="default",
    )
    assert all(timing.step_time > 0 for timing in found)
    assert [timing.peak_memory_mb for timing in found] == [None, None]


def test_a_block_needs_inputs_and_rounds():
    with pytest.raises(ValueError, match="inputs is empty"):
        time_block(nn.Linear(4, 4), [])
    with pytest.raises(ValueError, match="rounds must be 1 or more, got 0"):
        time_block(nn.Linear(4, 4), [(torch.randn(1, 2, 4), {})], rounds=0)
    with pytest.raises(ValueError, match="as the first run compiles, got 0"):
        time_block(nn.Linear(4, 4), [(torch.randn(1, 2, 4), {})], warmup=0, compile_mode="default")


def test_numbers_of_tokens_have_their_nearest_multiples():
    assert token_counts([197], least=2) == [192, 197, 208, 224]
    assert token_counts([197, 139], least=2) == [128, 139, 144, 160, 192, 197, 208, 224]
    # a multiple is its own neighbour, and what leaves no patch is left out
    assert token_counts([48], least=2) == [32, 48, 64]
    assert token_counts([5], least=2) == [5, 16, 32]
    assert token_counts([17], least=17) == [17, 32]


def test_rows_become_a_table_that_reads_back():
    rows = [
        {"batch_size": 1, "mode": "eager", "compile_mode": None},
        {"batch_size": 2, "mode": "a,b", "compile_mode": "x"},
    ]
    text = as_csv(rows)
    assert text.splitlines()[0] == "batch_size,mode,compile_mode"
    read = list(csv.DictReader(io.StringIO(text)))
    assert read == [
        {name: "" if value is None else str(value) for name, value in row.items()} for row in rows
    ]


@torch.inference_mode()
def test_on_a_gpu_memory_is_taken_warm(monkeypatch):
    # a stand-in for a device that need not be there: it notes what it is asked, and the run before counts for nothing
    asked = []
    monkeypatch.setattr(
        torch.cuda, "memory_allocated", lambda device: asked.append("before") or 5_000_000
    )
    monkeypatch.setattr(torch.cuda, "reset_peak_memory_stats", lambda device: asked.append("reset"))
    monkeypatch.setattr(
        torch.cuda, "max_memory_allocated", lambda device: asked.append("peak") or 7_000_000
    )
    with FakeTensorMode():
        x = torch.empty(2, 4, device="cuda")
    assert peak_memory(Noted(asked), x) == 2
    assert asked == ["run", "before", "reset", "run", "peak"]


@no_cuda
def test_on_a_gpu_the_clock_waits_for_it():
    dense, reduced = vit().cuda(), batvit.patch(vit(), tokens=(4,), blocks=(1,)).cuda()
    found = benchmark(dense, reduced, images(8).cuda(), parts=["blocks.1.reduce"], rounds=3)
    assert 0 < found.reduction_share < 1
    assert found.reduced.peak_memory_mb > 0


@no_cuda
@torch.inference_mode()
def test_on_a_gpu_the_first_run_takes_no_more_memory_than_the_second():
    model, x = nn.Linear(512, 512).cuda(), torch.randn(8, 512, device="cuda")
    peaks = [peak_memory(model, x) for _ in range(2)]
    assert peaks[0] == peaks[1] > 0


@no_cuda
@torch.inference_mode()
def test_on_a_gpu_more_pictures_hold_more_memory():
    model = vit().cuda().eval()
    peaks = [peak_memory(model, images(batch).cuda()) for batch in (1, 64)]
    assert 0 < peaks[0] < peaks[1]
