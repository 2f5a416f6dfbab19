"""One block at several numbers of tokens."""

import shutil

import pytest
import torch
from timm.models.vision_transformer import VisionTransformer
from torch import nn

from batvit.measure import block_speed
from batvit.measure.block_speed import time_block, token_counts

pytestmark = pytest.mark.usefixtures("quiet")
no_compiler = pytest.mark.skipif(
    not (shutil.which("g++") or shutil.which("clang++")),
    reason="torch's default backend needs a C++ compiler",
)


def vit():
    return VisionTransformer(
        img_size=64, patch_size=16, embed_dim=24, depth=4, num_heads=3, num_classes=5
    )


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
    speeds = time_block(Taking(log).train(), inputs((5, 3, 8), batch=3), rounds=4, warmup=2)
    found = [speed.timing for speed in speeds]
    assert {entry[1:] for entry in log} == {(False, True)}
    # the memory, then the warm-ups, then the rounds
    assert [count for count, *_ in log] == [5, 3, 8] + [5, 5, 3, 3, 8, 8] + [5, 3, 8] * 4
    assert [timing.batch_size for timing in found] == [3] * 3
    assert [timing.samples_per_sec for timing in found] == pytest.approx(
        [3000 / timing.step_time for timing in found]
    )
    peaks = [timing.peak_memory_mb for timing in found]
    assert 0 < peaks[1] < peaks[0] < peaks[2]


def test_the_speedups_are_over_the_baseline(monkeypatch):
    times = [[8.0, 40.0, 4.0], [2.0, 10.0, 4.0], [4.0, 80.0, 8.0]]
    monkeypatch.setattr(block_speed, "in_turns", lambda *a, **k: times)
    block = Taking([])
    first = time_block(block, inputs((5, 3, 8)))
    assert [speed.speedup for speed in first] == [1.0, 4.0, 0.5]
    second = time_block(block, inputs((5, 3, 8)), baseline=1)
    assert [speed.speedup for speed in second] == [0.25, 1.0, 0.5]


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
    assert all(speed.timing.step_time > 0 for speed in found)
    assert [speed.timing.peak_memory_mb for speed in found] == [None, None]


def test_a_block_needs_inputs_and_rounds():
    with pytest.raises(ValueError, match="inputs is empty"):
        time_block(nn.Linear(4, 4), [])
    with pytest.raises(ValueError, match=r"rounds must lie in \[1, inf\), got 0"):
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
