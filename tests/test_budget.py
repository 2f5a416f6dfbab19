"""Every plan, brought to a budget of MACs and of time."""

import re
from functools import cache

import pytest
import timm
import torch

import batvit
from batvit import budget
from batvit.budget import (
    Family,
    MacCurve,
    OutOfReachError,
    at_macs,
    at_time,
    contenders,
    macs_of,
)
from batvit.config.config import BATConfig
from batvit.plans import PLANS, diffrate
from batvit.reduction.schedule import schedule

counted = cache(macs_of)


@pytest.fixture(autouse=True, scope="module")
def _counted_once():
    """All tests are of one model."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(budget, "macs_of", counted)
        yield


@pytest.fixture(scope="module")
def model():
    with torch.device("meta"):
        return timm.create_model(
            "vit_tiny_patch16_224", img_size=160, depth=6, embed_dim=48, num_heads=3
        )


@pytest.mark.parametrize("method", contenders())
def test_a_family_falls_from_everything_to_almost_nothing(method, model):
    family = Family.of(method, model)
    by_keep = [
        schedule(family.at(keep), depth=6, patches=100, prefix=1)
        for keep in (1.0, 0.9, 0.6, 0.3, 0.05)
    ]
    totals = [sum(counts.tokens_out for counts in sites) for sites in by_keep]
    assert totals == sorted(totals, reverse=True)
    assert all(counts.tokens_out == 100 for counts in by_keep[0])
    assert totals[-1] < totals[0] / 2
    # the plan can do each step
    for sites in by_keep:
        for counts in sites:
            assert (
                counts.tokens_in - counts.tokens_out
                <= PLANS[family.at(1.0).method].max_reduction * counts.tokens_in
            )


@pytest.mark.parametrize("method", contenders())
def test_every_contender_spares_the_last_mlp_what_no_head_reads(method, model):
    config = Family.of(method, model).at(0.6)
    assert (config.prefix_only, config.align) == (True, 1)


# the others spread as one of these does
@pytest.mark.parametrize("method", ["bat", "tome", "diffrate"])
def test_macs_are_met_from_below(method, model):
    config = at_macs(model, Family.of(method, model), 0.6)
    share = macs_of(model, config) / macs_of(model, None)
    assert 0.57 < share <= 0.6
    assert config.method == method
    assert {name: getattr(config, name) for name in PLANS[method].paper_fields} == PLANS[
        method
    ].paper_fields
    assert batvit.config_of(model) is None


def test_what_was_counted_is_not_counted_again(model, monkeypatch):
    family = Family.of("bat", model)
    asked = []

    def macs_of(model, config):
        asked.append(config)
        return counted(model, config)

    monkeypatch.setattr(budget, "macs_of", macs_of)
    curve = MacCurve(model, family)
    config = curve.within(0.6)
    first = len(asked)
    assert curve.within(0.6) == config
    assert len(asked) == first
    near = curve.within(0.62)
    assert 0.61 < counted(model, near) / counted(model, None) <= 0.62
    assert len(asked) - first < first
    assert at_macs(model, family, 0.6) == config


def test_what_costs_less_than_the_target_even_with_all_tokens_keeps_them_all(model):
    # the last MLP is spared whatever is kept
    assert at_macs(model, Family.of("bat", model), 0.99).keep_rate == 1.0


def test_bat_is_the_preset(model):
    config = at_macs(model, Family.of("bat", model), 0.6)
    assert config == BATConfig.preset(
        "training-free", keep_rate=config.keep_rate, align=1, prefix_only=True
    )


def test_tome_takes_the_same_number_in_every_block_and_half_at_most(model):
    assert Family.of("tome", model).at(0.9).tokens == (90, 80, 70, 60, 50, 40)
    assert Family.of("tome", model).at(0.1).tokens == (50, 25, 13, 7, 4, 2)


def test_diffrate_has_its_published_shape(model):
    deit = Family("diffrate", depth=12, patches=196, width=384)
    # the published counts less the class token: 2.3 G at a sixth, 2.9 at four, 3.1 at five
    assert deit.at(4 / 6).tokens == (196, 193, 175, 155, 140, 132, 120, 106, 87, 63, 55, 2)
    assert deit.at(5 / 6).tokens == diffrate.tokens("deit_small", 3.1)
    assert deit.at(4.5 / 6).tokens[2:4] == (180, 159)
    assert deit.at(1 / 6).tokens == diffrate.tokens("deit_small", 2.3)
    assert deit.at(1 / 12).tokens[3] == round(196 * (126 / 196) ** 2)
    assert deit.at(1.0).tokens == (196,) * 12
    # of the model that is nearest in width
    assert Family("diffrate", depth=12, patches=196, width=200).at(1 / 6).tokens == diffrate.tokens(
        "deit_tiny", 0.6
    )
    assert Family("diffrate", depth=24, patches=196, width=1024).at(1 / 6).tokens[
        1::2
    ] == diffrate.tokens("deit_base", 8.7)


@pytest.mark.parametrize("share", [0.0, 1.0, 1.5, -0.1])
def test_a_share_of_nothing_or_everything_is_refused(share, model):
    with pytest.raises(ValueError, match=re.escape(f"in (0, 1), got {share}")):
        at_macs(model, Family.of("bat", model), share)


def test_what_cannot_be_reached_names_the_nearest(model):
    with pytest.raises(
        OutOfReachError, match=r"bat cannot go down to 0.05 of the MACs; the nearest is 0\.\d+"
    ):
        at_macs(model, Family.of("bat", model), 0.05)


def test_an_unknown_plan_is_refused(model):
    with pytest.raises(ValueError, match="unknown plan 'bta'; there are bat, bat_gradual, topk"):
        Family.of("bta", model)


@pytest.mark.parametrize("overhead", [0.0, 0.15])
def test_time_is_met_whatever_a_plan_costs_beside_its_macs(overhead, model):
    dense = macs_of(model, None)
    asked = []

    def time_share(config):
        asked.append(config)
        return (counted(model, config) / dense) ** 0.8 + overhead

    config, taken = at_time(model, Family.of("bat", model), 0.7, time_share)
    assert taken == pytest.approx(0.7, rel=0.03)
    assert taken == time_share(config)
    assert len(asked) <= 5


def test_a_plan_that_is_slower_than_dense_cannot_be_brought_to_a_time(model):
    with pytest.raises(
        OutOfReachError,
        match=r"bat was not brought to 0.5 of the time of the dense model; nearest 1\.20",
    ):
        at_time(model, Family.of("bat", model), 0.5, lambda config: 1.2)
