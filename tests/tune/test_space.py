"""The search space: candidates, the tokens they are given, and the presets among them."""

import random
from dataclasses import replace

import pytest
import timm

from batvit.backbones.registry import anatomy_of
from batvit.config import BATConfig
from batvit.reduction.schedule import schedule
from batvit.tune.search import BEGIN
from batvit.tune.space import NEIGHBOURS, Candidate, least_cost, varied_configs


def test_a_shape_has_prefix_tokens_alone_in_the_end_where_no_others_are_read(model, candidate):
    config = candidate.at(6.0, anatomy_of(model))
    assert config.blocks == (1, 2, 3)
    assert config.tokens == (26, 16, 6)
    assert config.prefix_only
    pooled = timm.create_model(
        "vit_tiny_patch16_224", img_size=96, depth=5, embed_dim=48, num_heads=3, global_pool="avg"
    )
    assert candidate.at(6.0, anatomy_of(pooled)) == config.with_fields(prefix_only=False)


def test_tokens_fall_early_or_late(model, candidate):
    first = []
    last = []
    for decay in (-0.5, 0.0, 0.5, 1.0, 2.0):
        config = replace(candidate, decay=decay).at(6.0, anatomy_of(model))
        first.append(config.tokens[0])
        last.append(config.tokens[2])
    assert first == sorted(set(first))
    assert set(last) == {6}


@pytest.mark.parametrize(
    ("preset", "candidate"), [("training-free", BEGIN[0]), ("gradual", BEGIN[1])]
)
def test_the_presets_are_shapes(deep, preset, candidate):
    """To a token, which gradual rounds up where all others are rounded."""
    anatomy = anatomy_of(deep)
    config = BATConfig.preset(preset, keep_rate=0.6, align=1)
    sites = schedule(config, depth=12, patches=anatomy.patches, prefix=1)
    expected = [site.tokens_out for site in sites]
    found = candidate.at(float(expected[-1]), anatomy)
    assert found.blocks == tuple(site.block for site in sites)
    assert found.tokens == pytest.approx(expected, abs=1)
    for name in (
        "centres",
        "pairs",
        "neighbours",
        "similarity",
        "weight",
        "size_aware",
        "keep_norm",
    ):
        assert getattr(found, name) == getattr(config, name)
    gradual = BATConfig.preset("gradual")
    assert found.size_power == gradual.size_power
    assert found.importance_power == gradual.importance_power


@pytest.mark.parametrize("budget", [0.8, 0.6])
def test_a_shape_within_a_budget_spends_nearly_all_of_it(model, candidate, cost, budget):
    config = candidate.within(budget, cost, anatomy_of(model))
    assert budget - 0.05 < cost(config) <= budget
    assert candidate.within(0.01, cost, anatomy_of(model)) is None


@pytest.mark.parametrize("depth", [1, 2, 3])
def test_shallow_models_have_shapes(depth):
    for seed in range(20):
        candidate = Candidate.draw(random.Random(seed), depth)
        assert 0 <= candidate.first <= candidate.last < depth


def test_what_varies_is_always_the_same_and_unlike(model):
    configs = varied_configs(anatomy_of(model), 24)
    assert len(configs) == 24
    assert configs == varied_configs(anatomy_of(model), 24)
    for name, number in (
        ("neighbours", len(NEIGHBOURS)),
        ("similarity", 2),
        ("weight", 3),
        ("size_aware", 2),
        ("pairs", 4),
    ):
        assert len({getattr(config, name) for config in configs}) == number


def test_nothing_costs_less_than_the_leanest(model, cost):
    lean = least_cost(cost, anatomy_of(model))
    for seed in range(50):
        config = Candidate.draw(random.Random(seed), 5).at(1.0, anatomy_of(model))
        assert lean <= cost(config) + 1e-9
    assert lean < 0.5
