"""Speed and memory. What a clock says is never asserted, only what must hold whatever it says."""

import shutil

import pytest
import torch
from timm.models.vision_transformer import VisionTransformer
from torch import nn

import batvit
from batvit.benchmark import Comparison, Timing, compare, peak_memory, time_share

no_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device: timing and memory on it are not measured")
no_compiler = pytest.mark.skipif(
    not (shutil.which("g++") or shutil.which("clang++")), reason="torch's default backend needs a C++ compiler"
)


@pytest.fixture(autouse=True)
def _quiet(monkeypatch):
    # torch's profiler writes notes to standard error
    monkeypatch.setenv("KINETO_LOG_LEVEL", "99")
    yield
    torch.compiler.reset()


def vit():
    return VisionTransformer(img_size=64, patch_size=16, embed_dim=24, depth=4, num_heads=3, num_classes=5)


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
    found = compare(model, model, images(), rounds=3, warmup=1)
    assert (found.mac_ratio, found.macs, found.reduction_share) == (1, found.dense_macs, 0)
    assert found.realised_share == found.speedup
    assert found.dense.peak_memory_mb == found.reduced.peak_memory_mb > 0
    assert found.param_count == sum(p.numel() for p in model.parameters())


def test_a_reduced_model_beside_the_dense_one():
    dense, reduced = vit(), batvit.patch(vit(), tokens=(4,), blocks=(1,))
    found = compare(dense, reduced, images(3), parts=["blocks.1.reduce"], rounds=4, warmup=1)
    assert found.mac_ratio == batvit.info(reduced).mac_ratio > 1
    assert 0 < found.reduction_share < 1
    for timing in (found.dense, found.reduced):
        assert timing.batch_size == 3
        assert timing.samples_per_sec == pytest.approx(3000 / timing.step_time)
        assert timing.step_time_iqr >= 0
    fields = found.to_dict()
    assert {"batch_size", "step_time", "samples_per_sec", "peak_memory_mb"} <= set(fields)
    assert {"param_count", "gmacs", "mac_ratio", "speedup", "realised_share", "reduction_share", "rounds"} <= set(fields)
    assert {name for name in fields if name.startswith("dense_")} == {
        f"dense_{name}" for name in ("step_time", "step_time_iqr", "samples_per_sec", "peak_memory_mb", "gmacs")
    }
    assert fields["realised_share"] == fields["speedup"] / fields["mac_ratio"]


def test_models_take_turns_in_eval_mode_after_a_warm_up():
    log = []
    dense, reduced = Counting(log, "dense"), Counting(log, "reduced")
    compare(dense.train(), reduced.train(), torch.randn(2, 4), parts=["linear"], rounds=3, warmup=2)
    assert {entry[1:] for entry in log} == {(False, True)}
    turns = [name for name, *_ in log]
    # the share and the memory, then the warm-ups, then the rounds
    assert turns[-10:] == ["dense"] * 2 + ["reduced"] * 2 + ["dense", "reduced"] * 3


def test_numbers_of_a_comparison_are_those_of_its_timings():
    dense, reduced = Timing(8, 30.0, 1.0, 266.7, 5.0), Timing(8, 20.0, 1.0, 400.0, 4.0)
    found = Comparison(dense, reduced, 4000, 2000, 10, rounds=5, compiled=False, reduction_share=0.1)
    assert (found.speedup, found.mac_ratio, found.realised_share) == (1.5, 2, 0.75)


def test_the_spread_of_one_round_is_nothing_and_of_two_lies_between_them():
    model = nn.Linear(4, 4)
    assert compare(model, model, torch.randn(1, 4), rounds=1, warmup=0).dense.step_time_iqr == 0
    found = compare(model, model, torch.randn(1, 4), rounds=2, warmup=0).dense
    assert 0 <= found.step_time_iqr <= found.step_time


def test_too_few_rounds_are_refused():
    model = nn.Linear(4, 4)
    for settings, said in (
        ({"rounds": 0}, "rounds must be 1 or more, got 0"),
        ({"warmup": -1}, "warmup must be 0 or more, got -1"),
        ({"warmup": 0, "compiled": True}, "warmup must be 1 or more, as the first run compiles, got 0"),
    ):
        with pytest.raises(ValueError, match=said):
            compare(model, model, torch.randn(1, 4), **settings)


def test_a_part_takes_some_of_the_time_and_all_parts_take_most():
    model = nn.Sequential(nn.Linear(64, 64), nn.Linear(64, 64))
    x = torch.randn(8, 64)
    some, everything = time_share(model, x, ["0"], rounds=3), time_share(model, x, ["0", "1"], rounds=3)
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


@pytest.mark.unchecked
@no_compiler
def test_compiled_models_are_compared():
    # a shape checker inside a graph would break it
    dense, reduced = nn.Linear(8, 8), nn.Linear(8, 4)
    found = compare(dense, reduced, torch.randn(2, 8), rounds=2, warmup=1, compiled=True)
    assert found.compiled
    assert found.mac_ratio == 2


@pytest.mark.unchecked
def test_each_shape_is_compiled_anew(monkeypatch):
    # past its limit of recompilations torch would run the model eagerly, and say so in a warning at most
    compiled, graphs = torch.compile, []

    def backend(graph, inputs):
        graphs.append(inputs[-1].shape)
        return graph.forward

    monkeypatch.setattr(torch, "compile", lambda model, **settings: compiled(model, backend=backend, **settings))
    # timm's optimisers raise the limit to a million when they are imported
    monkeypatch.setattr(torch._dynamo.config, "recompile_limit", 2)
    model = nn.Sequential(nn.Linear(4, 4), nn.ReLU())
    for batch in range(2, 6):
        graphs.clear()
        compare(model, model, torch.randn(batch, 4), rounds=1, warmup=1, compiled=True)
        assert len(graphs) >= 1


@no_cuda
def test_on_a_gpu_the_clock_waits_for_it():
    dense, reduced = vit().cuda(), batvit.patch(vit(), tokens=(4,), blocks=(1,)).cuda()
    found = compare(dense, reduced, images(8).cuda(), parts=["blocks.1.reduce"], rounds=3)
    assert 0 < found.reduction_share < 1
    assert found.reduced.peak_memory_mb > 0


@no_cuda
@torch.inference_mode()
def test_on_a_gpu_more_pictures_hold_more_memory():
    model = vit().cuda().eval()
    peaks = [peak_memory(model, images(batch).cuda()) for batch in (1, 64)]
    assert 0 < peaks[0] < peaks[1]
