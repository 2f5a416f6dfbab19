"""``prefix_only``: what the head does not read skips the last MLP, and nothing else changes."""

import pytest
import torch
from families import FAMILIES, family, pictures
from torch.utils._pytree import tree_leaves

import batvit
from batvit.backbones.patch import schedule_of
from batvit.backbones.registry import anatomy_of
from batvit.budget import macs_of
from batvit.config import BATConfig
from batvit.inspection.tracing import diversity_by_block

CONFIG = BATConfig.preset("training-free", keep_rate=0.6, blocks=(1,))
LEAN = CONFIG.with_fields(prefix_only=True)


def test_heads_that_read_nothing_else_are_known():
    known = {name for name in FAMILIES if anatomy_of(family(name, depth=3)).reads_prefix_only}
    assert {
        "vit",
        "deit",
        "deit_distilled",
        "dinov2_registers",
        "rope_mixed",
        "torchvision",
    } <= known
    assert not {"gap", "mae", "siglip", "features", "lvvit", "hf_vit", "open_clip_pooled"} & known


@pytest.mark.parametrize("name", FAMILIES)
@torch.no_grad()
def test_the_output_stays_and_costs_less_where_the_head_reads_nothing_else(name):
    model = family(name, depth=3)
    plain, lean = (macs_of(model, config) for config in (CONFIG, LEAN))
    assert (lean < plain) if anatomy_of(model).reads_prefix_only else (lean == plain)
    tower = anatomy_of(batvit.patch(model, CONFIG)).tower
    x = pictures(tower)
    expected = tree_leaves(tower(x))
    found = tree_leaves(anatomy_of(batvit.patch(model, LEAN)).tower(x))
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("method", ["bat", "topk", "tofu"])
@torch.no_grad()
def test_a_site_in_the_last_block_is_not_run(method):
    model = family("deit_distilled", depth=3)
    x = pictures(model)
    expected = batvit.patch(model, CONFIG, blocks=(1, 2), method=method)(x)
    batvit.patch(model, LEAN, blocks=(1, 2), method=method)
    with batvit.trace(model) as trace:
        torch.testing.assert_close(model(x), expected, rtol=1e-5, atol=1e-5)
    assert (
        [site.counts.block for site in trace.sites]
        == [counts.block for counts in schedule_of(model)]
        == [1]
    )
    assert model.forward_features(x).shape == (2, 2, 48)


@torch.no_grad()
def test_pruned_to_fewer_blocks_it_gives_the_grid():
    model = batvit.patch(family("deit", depth=4), LEAN)
    x = pictures(model)
    expected = model.forward_intermediates(x, indices=[2], intermediates_only=True)
    model.prune_intermediate_layers([2])
    assert model.forward_features(x).shape == (2, 37, 48)
    torch.testing.assert_close(
        model.forward_intermediates(x, indices=[2], intermediates_only=True), expected
    )


@torch.no_grad()
def test_without_any_reduction_the_logits_are_those_of_the_dense_model():
    model = family("deit", depth=3)
    x = pictures(model)
    expected, dense = model(x), macs_of(model, None)
    assert macs_of(model, BATConfig(keep_rate=1.0, blocks=(0,), prefix_only=True)) < dense
    found = batvit.patch(model, keep_rate=1.0, blocks=(0,), prefix_only=True)(x)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


def test_gradients_are_the_same():
    grads = []
    for config in (CONFIG, LEAN):
        model = batvit.patch(family("deit", depth=3), config)
        model(pictures(model)).sum().backward()
        grads.append([parameter.grad for parameter in model.parameters()])
    for one, other in zip(*grads, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)


@torch.no_grad()
def test_maps_and_diversity_are_of_all_tokens_all_the_same():
    model = family("deit", depth=3)
    x = pictures(model)
    batvit.patch(model, CONFIG)
    maps, diversity = (
        model.forward_intermediates(x, intermediates_only=True),
        diversity_by_block(model, x),
    )
    batvit.patch(model, LEAN)
    assert diversity_by_block(model, x) == pytest.approx(diversity, rel=1e-5)
    for one, other in zip(
        model.forward_intermediates(x, intermediates_only=True), maps, strict=True
    ):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-5)
    assert model.forward_features(x).shape == (2, 1, 48)


@torch.no_grad()
def test_another_head_gets_what_it_reads():
    model = batvit.patch(family("deit", depth=3), LEAN)
    x = pictures(model)
    model.reset_classifier(7, "avg")
    assert model.forward_features(x).shape == (2, 37, 48)
    model.reset_classifier(7, "token")
    assert model.forward_features(x).shape == (2, 1, 48)


def test_info_tells_it():
    model = batvit.patch(family("deit", depth=3), LEAN)
    found = batvit.info(model)
    assert [block.tokens_out for block in found.blocks] == [36, 23, 0]
    assert found.macs == macs_of(model, LEAN)


@pytest.mark.unchecked
@torch.no_grad()
def test_it_is_one_graph():
    model = batvit.patch(family("deit", depth=3), LEAN)
    x = pictures(model)
    graph = torch.compile(model, fullgraph=True, backend="eager")
    torch.testing.assert_close(graph(x), model(x), rtol=1e-5, atol=1e-5)
    torch._dynamo.reset()
    exported = torch.export.export(model, (x,)).module()
    torch.testing.assert_close(exported(x), model(x), rtol=1e-5, atol=1e-5)
