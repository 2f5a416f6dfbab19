"""Time and memory. What a clock says is never asserted, only what must hold whatever it says."""

import math
import platform
import random
import subprocess
import sys

import pytest
import torch
from scipy.stats import quantile_test
from timm.models.vision_transformer import VisionTransformer
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode

from batvit.measure import clock
from batvit.measure.clock import (
    all_steady,
    in_turns,
    is_steady,
    median_is_known,
    peak_memory,
    quartiles,
    speedup,
    time_share,
)

pytestmark = pytest.mark.usefixtures("quiet")
no_cuda = pytest.mark.skipif(
    not torch.cuda.is_available(), reason="no CUDA device: timing and memory on it are not measured"
)


def vit():
    return VisionTransformer(
        img_size=64, patch_size=16, embed_dim=24, depth=4, num_heads=3, num_classes=5
    )


def images(batch=2):
    return torch.randn(batch, 3, 64, 64, generator=torch.Generator().manual_seed(0))


def test_quartiles_of_some_values_and_of_one():
    assert quartiles([1.0, 2.0, 3.0, 4.0, 5.0]) == (2.0, 3.0, 4.0)
    assert quartiles([1.0, 2.0, 3.0, 4.0, 5.0]).range == 2.0
    assert quartiles([7.0]) == (7.0, 7.0, 7.0)


def test_a_speedup_is_the_median_of_the_ratios_of_single_rounds():
    # the machine becomes slower from round to round, and one round is out of line
    dense, reduced = [10.0, 20.0, 40.0, 80.0, 900.0], [5.0, 10.0, 20.0, 40.0, 80.0]
    assert speedup(dense, reduced).median == 2.0
    assert speedup([10.0, 20.0, 30.0], [10.0, 5.0, 30.0]) == (1.0, 1.0, 2.5)
    assert speedup(dense, dense) == (1.0, 1.0, 1.0)


def test_rounds_of_one_model_alone_have_no_speedup():
    with pytest.raises(ValueError, match="shorter"):
        speedup([1.0, 2.0], [1.0])


def test_runs_warm_up_and_then_take_turns():
    log = []
    runs = [lambda: log.append("a"), lambda: log.append("b")]
    times = in_turns(runs, torch.zeros(1), rounds=2, warmup=1)
    assert log == ["a", "b", "a", "b", "a", "b"]
    assert [len(measured) for measured in times] == [2, 2]
    assert min(min(measured) for measured in times) >= 0


QUIET = [10.0, 10.1, 9.9, 10.0, 10.2, 9.8, 10.0, 10.1, 9.9, 10.0]
# another process takes the core in half of the rounds
BUSY = [10.0, 24.0, 9.9, 21.0, 10.2, 30.0, 10.0, 17.0, 9.9, 26.0]


def test_a_speedup_is_steady_where_its_median_is_known_within_five_percent():
    steady = [5.0] * 10
    assert is_steady(QUIET, steady)
    assert not is_steady(BUSY, steady)
    assert not is_steady(QUIET, BUSY)
    # slower from round to round, both alike
    drift = [2.0**i for i in range(10)]
    assert is_steady(drift, [3 * time for time in drift])
    # one round out of line says nothing of the median
    assert is_steady([*QUIET[:-1], 90.0], steady)
    # the dense model on its own
    assert median_is_known(QUIET)
    assert not median_is_known(drift)


@pytest.mark.parametrize("rounds", [1, 2, 5])
def test_too_few_rounds_do_not_say_how_steady_they_are(rounds):
    assert not is_steady([10.0] * rounds, [5.0] * rounds)


@pytest.mark.parametrize(
    ("times", "steady"),
    [((QUIET, QUIET), True), ((QUIET, BUSY), False), ((BUSY, QUIET), False), ((BUSY, BUSY), False)],
)
def test_all_runs_must_be_steady_the_dense_one_too(times, steady):
    assert all_steady([list(measured) for measured in times]) is steady


@pytest.mark.parametrize(
    ("rounds", "after", "measured"), [(6, 1, 6), (6, 2, 12), (6, 9, 18), (5, 9, 5)]
)
def test_what_is_not_enough_is_measured_again_up_to_three_times(rounds, after, measured):
    asked = []

    def enough(times):
        asked.append([len(of_run) for of_run in times])
        return len(asked) == after

    runs = [lambda: None, lambda: None]
    times = in_turns(runs, torch.zeros(1), rounds=rounds, warmup=0, enough=enough)
    assert [len(of_run) for of_run in times] == [measured] * 2
    assert asked == [[rounds * (i + 1)] * 2 for i in range(len(asked))]


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
keep_freed_memory()
# now and then the heap grows in another place
after = sorted(faults() for _ in range(11))
print(before, after[5])
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


@torch.inference_mode()
def test_on_a_gpu_memory_is_taken_warm(monkeypatch):
    # a stand-in for a device that need not be there: it notes what it is asked, and the run
    # before counts for nothing
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


@pytest.mark.parametrize("number", [5, 6, 9, 15, 45, 101])
def test_the_limits_of_a_median_are_those_of_scipy(number):
    generator = random.Random(0)
    values = [generator.random() for _ in range(number)]
    place = clock._place_of_limit(number)
    low, high = quantile_test(values, q=0.5, p=0.5).confidence_interval(0.95)
    if place < 0:
        assert math.isnan(low)
    else:
        assert (sorted(values)[place], sorted(values)[-1 - place]) == (low, high)
