"""What happens at a site: importance, groups, what they are merged by."""

import itertools
from dataclasses import replace

import pytest
import torch
from families import family, pictures

import batvit
from batvit.core import assign, merge
from batvit.reduction.site import QueriesKeys, Reduce, reductions
from batvit.reduction.tokens import Tokens


@pytest.mark.parametrize("size_aware", [False, True])
@pytest.mark.parametrize("method", ["bat", "topk"])
def test_a_site_makes_the_bias_of_what_it_leaves(method, size_aware):
    config = batvit.BATConfig(tokens=(12,), blocks=(0,), method=method, size_aware=size_aware)
    site = Reduce(config, 0, depth=1, prefix=1, class_token=True)
    x, queries, keys = torch.randn(3, 2, 1, 50, 48, generator=torch.Generator().manual_seed(0))
    before = Tokens.start(x[:, 0], 1)
    after = site(before, QueriesKeys(queries, keys, 0.1))
    assert before.bias is None
    assert after.origin.drops == (method == "topk")
    if not size_aware:
        assert after.bias is None
        return
    assert after.bias.shape == (2, 1, 1, 13)
    assert torch.equal(after.bias[:, 0, 0, 0], torch.zeros(2))
    torch.testing.assert_close(after.bias[:, 0, 0, 1:].exp(), after.sizes.float())
    assert (after.sizes.max() > 1) == (method == "bat")


@pytest.mark.parametrize("weight", ["importance", "size", "importance_size"])
@pytest.mark.parametrize("similarity", ["tokens", "keys"])
@pytest.mark.parametrize("keep_norm", [False, True])
def test_a_site_groups_by_similarity_and_merges_by_weight(weight, similarity, keep_norm):
    config = batvit.BATConfig(
        tokens=(12,), blocks=(0,), weight=weight, similarity=similarity, keep_norm=keep_norm
    )
    site = Reduce(config, 0, depth=1, prefix=1, class_token=True)
    x, queries, keys = torch.randn(3, 2, 3, 50, 48, generator=torch.Generator().manual_seed(0))
    size = (torch.arange(49) % 5 + 1).expand(2, -1)
    before, captured = (
        replace(Tokens.start(x[:, 0], 1), sizes=size),
        QueriesKeys(queries, keys, 0.1),
    )
    importance, counts, image = site.importance(before, captured), site.counts(49), x[:, 0, 1:]
    features = {"tokens": image, "keys": keys.mean(dim=1)[:, 1:]}
    groups = {
        name: assign(
            each, importance, attentive=counts.attentive, pairs=counts.pairs, centres=counts.centres
        )
        for name, each in features.items()
    }
    weights = {"importance": importance, "size": size.float(), "importance_size": importance * size}
    merged = {
        (one, other, kept): merge(image, groups[one], weights[other], keep_norm=kept)
        for one, other, kept in itertools.product(groups, weights, (False, True))
    }
    found = site(before, captured)
    assert torch.equal(found.origin.index, groups[similarity].index)
    near = [
        key
        for key, each in merged.items()
        if torch.allclose(found.x[:, 1:], each, rtol=1e-5, atol=1e-5)
    ]
    assert near == [(similarity, weight, keep_norm)]


@torch.no_grad()
def test_the_power_reaches_the_blocks_after_a_site():
    model = family("vit")
    seen = []
    batvit.patch(model, tokens=(12,), blocks=(2,), size_power=0.5)
    model.blocks[2].register_forward_hook(lambda m, a, out: seen.append(out))
    model(pictures(model))
    tokens = Tokens.of(seen[0])
    torch.testing.assert_close(tokens.bias[:, 0, 0, 1:], tokens.sizes.log() / 2)


def importance_and_attention(name):
    """What a site takes for importance, and the attention that the module itself computed.

    The attention is (B, H, queries, keys).
    """
    model = family(name)
    attention = model.blocks[1].attn
    attention.fused_attn = False
    batvit.patch(model, keep_rate=0.5, blocks=(1,))
    seen, captured = [], []
    attention.attn_drop.register_forward_hook(lambda m, a, out: seen.append(out))
    site = reductions(model)[1]
    importance = site.importance
    site.importance = lambda *a: captured.append(importance(*a)) or captured[-1]
    with torch.no_grad():
        model(pictures(model))
    return captured[0], seen[0]


def test_importance_is_the_class_row_of_the_attention():
    importance, attention = importance_and_attention("vit")
    torch.testing.assert_close(importance, attention[:, :, 0, 1:].mean(1))


def test_without_a_class_token_importance_is_the_attention_received():
    importance, attention = importance_and_attention("siglip")
    torch.testing.assert_close(importance, attention.mean((1, 2)))


def test_importance_learns_through_the_weights():
    model = batvit.patch(family("deit"), mode="paper", keep_rate=0.5, blocks=(1,))
    captured = []
    site = reductions(model)[1]
    importance = site.importance
    site.importance = lambda *a: captured.append(importance(*a)) or captured[-1]
    model(pictures(model)).square().mean().backward(inputs=[*model.parameters()])
    assert captured[0].requires_grad


@pytest.mark.parametrize("method", ["bat", "topk"])
def test_autocast_shortens_neither_distances_nor_sums(method):
    config = batvit.BATConfig(tokens=(40,), blocks=(0,), weight="size", method=method)
    site = Reduce(config, 0, depth=1, prefix=1, class_token=True)
    generator = torch.Generator().manual_seed(0)
    # far from the origin, where distances in bf16 would cancel to noise
    x = 30 + torch.randn(2, 197, 48, generator=generator)
    queries, keys = torch.randn(2, 2, 3, 197, 16, generator=generator).bfloat16().float()
    site.importance = lambda tokens, captured: keys[:, :, 1:, 0].mean(1).abs()
    expected = site(Tokens.start(x, 1), QueriesKeys(queries, keys, 0.25))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = site(Tokens.start(x, 1), QueriesKeys(queries, keys, 0.25))
    assert torch.equal(found.origin.index, expected.origin.index)
    assert torch.equal(found.x, expected.x)
