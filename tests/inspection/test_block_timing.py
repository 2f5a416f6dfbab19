"""The middle block of a model, timed at the numbers of tokens that matter."""

import copy
from functools import partial

import pytest
import timm

import batvit
from batvit.backbones.registry import adapter_of, anatomy_of
from batvit.inspection.block_timing import reduction_names, time_middle_block
from batvit.measure import block_speed


@pytest.fixture(autouse=True)
def _quiet(monkeypatch):
    # torch's profiler writes notes to standard error
    monkeypatch.setenv("KINETO_LOG_LEVEL", "99")


def vit():
    return timm.create_model(
        "deit_tiny_patch16_224", depth=4, embed_dim=48, num_classes=3, img_size=64
    )


def test_rows_are_flat_and_compared_with_the_dense_number_of_tokens(monkeypatch):
    # 10, 16, 17 and 32 tokens; 17 is the dense model's
    times = [[1.0, 2.0, 5.0], [2.0, 2.0, 2.0], [2.0, 4.0, 8.0], [4.0, 4.0, 4.0]]
    monkeypatch.setattr(block_speed, "in_turns", lambda *a, **k: times)
    model = vit()
    reduced = batvit.patch(copy.deepcopy(model), tokens=(9,), blocks=(1,))
    rows = time_middle_block(model, reduced, batch_size=2, rounds=3, compile_mode=None)
    assert [row.tokens for row in rows] == [10, 16, 17, 32]
    assert [row.scheduled for row in rows] == [True, False, False, False]
    # the median of the ratios of single rounds
    assert [row.speedup for row in rows] == [2.0, 2.0, 1.0, 1.0]
    values = rows[0].to_dict()
    assert list(values) == [
        "batch_size",
        "step_time",
        "step_time_iqr",
        "samples_per_sec",
        "peak_memory_mb",
        "block",
        "tokens",
        "dense",
        "scheduled",
        "us_per_token",
        "speedup",
        "unsteady",
        "gmacs",
        "mac_ratio",
        "rounds",
        "compile_mode",
    ]
    assert (values["block"], values["step_time"], values["us_per_token"]) == (2, 2.0, 100.0)
    assert rows[2].mac_ratio == 1 < rows[0].mac_ratio


def test_the_modules_of_a_reduction_are_named():
    reduced = batvit.patch(vit(), tokens=(9, 4), blocks=(1, 3))
    names = reduction_names(reduced)
    assert names == ["blocks.1.reduce", "blocks.3.reduce"]
    assert all(reduced.get_submodule(name) is not None for name in names)
    assert reduction_names(vit()) == []


def hear(biases, mask, block, x, given):
    """A hook: the number of tokens that a block is run with, and the bias it is given."""
    biases[x[0].shape[1]] = given.get(mask)


def test_a_block_of_every_library_is_timed(imported):
    families = imported("tests/backbones/families.py")
    for name in families.FAMILIES:
        model = families.small(name, depth=2)
        reduced = batvit.patch(copy.deepcopy(model), tokens=(9,), blocks=(1,))
        anatomy, biases = anatomy_of(model), {}
        block = anatomy.blocks[1]
        mask = next(
            kind.mask
            for kind in adapter_of(model).reduced_classes()
            if kind.__bases__[-1] is type(block)
        )
        heard = block.register_forward_pre_hook(partial(hear, biases, mask), with_kwargs=True)
        rows = time_middle_block(model, reduced, batch_size=2, rounds=1, warmup=0)
        heard.remove()
        # behind a site attention is given the sizes, where it takes any
        whole = anatomy.prefix + anatomy.patches
        given = {count for count, bias in biases.items() if bias is not None and not bias.any()}
        assert given == ({count for count in biases if count < whole} if mask else set()), name
        assert [row.tokens for row in rows if row.dense] == [anatomy.prefix + anatomy.patches], name
        assert [row.tokens for row in rows if row.scheduled] == [anatomy.prefix + 9], name
        ratios = [row.mac_ratio for row in rows]
        assert ratios == sorted(set(ratios), reverse=True), name
