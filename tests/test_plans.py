"""Every plan decides what becomes of every token."""

import pytest
import timm
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.cluster.hierarchy import fcluster, linkage
from scipy.spatial.distance import squareform

import batvit
from batvit.config import BATConfig
from batvit.core import assign
from batvit.plans import PLANS, Evidence
from batvit.plans.evit import combine
from batvit.plans.pitome import energy


def random_evidence(seed, tokens, batch=2):
    draw = torch.Generator().manual_seed(seed)
    size = torch.randint(1, 5, (batch, tokens), generator=draw).float()
    return Evidence(torch.randn(batch, tokens, 4, generator=draw), torch.rand(batch, tokens, generator=draw), size, 12)


def decide(evidence, config):
    """The counts at the one site of a configuration, and what its plan makes of the evidence."""
    (counts,) = config.schedule(depth=2, patches=evidence.importance.shape[1])
    return counts, PLANS[config.method].decide(evidence, counts, config)


def test_the_plans_have_these_names():
    merging = ("bat", "evit", "tome", "pitome", "dpcknn", "kmedoids", "atc")
    assert {name: plan.drops for name, plan in PLANS.items()} == dict.fromkeys(("topk", "random"), True) | dict.fromkeys(
        merging, False
    )


@pytest.mark.parametrize("method", PLANS)
@given(st.integers(0, 2**32), st.integers(1, 20), st.floats(0.05, 1), st.floats(0, 1), st.floats(0, 0.5))
def test_a_plan_keeps_its_counts(method, seed, tokens, keep_rate, centres, pairs):
    keep_rate = max(keep_rate, 1 - PLANS[method].most)
    config = BATConfig(method=method, blocks=(1,), keep_rate=keep_rate, centres=centres, pairs=pairs)
    evidence = random_evidence(seed, tokens)
    counts, a = decide(evidence, config)
    assert (a.batch, a.tokens, a.groups) == (2, tokens, counts.tokens_out)
    assert a.is_onto
    # who drops loses all but one token a group; who does not loses none
    assert a.kept.sum(dim=1).tolist() == [counts.tokens_out if PLANS[method].drops else tokens] * 2
    assert torch.equal(decide(evidence, config)[1].index, a.index)


@pytest.mark.parametrize("method", PLANS)
def test_a_plan_needs_no_data_to_know_its_shapes(method):
    config = BATConfig(method=method, blocks=(1,), keep_rate=0.5)
    counts, a = decide(Evidence(*(part.to("meta") for part in random_evidence(0, 20)[:3]), 12), config)
    assert (a.tokens, a.groups) == (20, counts.tokens_out)


def test_topk_by_hand():
    importance = torch.tensor([[0.1, 0.4, 0.2, 0.4]])
    evidence = Evidence(torch.zeros(1, 4, 1), importance, torch.ones(1, 4), 12)
    # the two of 0.4 stay, the earlier first
    _, a = decide(evidence, BATConfig(method="topk", blocks=(1,), keep_rate=0.5))
    assert a.index.tolist() == [[-1, 0, -1, 1]]


def test_evit_by_hand():
    x = torch.tensor([[[1.0, 0.0], [0.0, 2.0], [4.0, 4.0], [10.0, 0.0]]])
    evidence = Evidence(x, torch.tensor([[0.1, 0.4, 0.3, 0.15]]), torch.ones(1, 4), 12)
    _, a = decide(evidence, BATConfig(method="evit", blocks=(1,), tokens=(3,)))
    # tokens 1 and 2 stay; 0 and 3 are fused: 0.1 * (1, 0) + 0.15 * (10, 0)
    assert a.index.tolist() == [[2, 0, 1, 2]]
    torch.testing.assert_close(combine(x, evidence, a), torch.tensor([[[0.0, 2.0], [4.0, 4.0], [1.6, 0.0]]]))


def test_a_plan_that_combines_in_its_own_way_is_heard():
    torch.manual_seed(0)
    model = timm.create_model("vit_tiny_patch16_224", img_size=64, depth=4).eval()
    images = torch.randn(2, 3, 64, 64)
    batvit.patch(model, method="evit", mode="paper", blocks=(1,), tokens=(6,))
    heard = []
    model.blocks[1].reduce.register_forward_hook(lambda module, args, tokens: heard.append((args[0].x, tokens.x)))
    with batvit.trace(model) as trace:
        model(images)
    (before, after), index = heard[0], trace.sites[0].origin.index
    assert after.shape == (2, 7, 192)
    for b in range(2):
        kept = [int((index[b] == group).nonzero()) for group in range(5)]
        assert torch.equal(after[b, 1:6], before[b, 1:][kept])
        # the attention of the fused tokens sums to less than 1
        assert after[b, 6].norm() < before[b, 1:][index[b] == 5].norm(dim=1).max()


def test_tome_by_hand():
    # tokens 0, 2, 4 choose among 1 and 3: 0 is most like 1 (cosine 1), 2 like 3 (0.8), 4 like 1 (0.6); two of them merge
    features = torch.tensor([[[1.0, 0.0], [2.0, 0.0], [0.6, 0.8], [0.0, 5.0], [0.6, -0.8]]])
    evidence = Evidence(features, torch.zeros(1, 5), torch.ones(1, 5), 12)
    _, a = decide(evidence, BATConfig(method="tome", blocks=(1,), tokens=(3,)))
    # 1 with 0, then 3 with 2; 4 stays alone
    assert a.index.tolist() == [[0, 0, 1, 1, 2]]


LINE = torch.tensor([0.0, 0.1, 0.3, 1.0, 1.2]).view(1, 5, 1)


def test_pitome_by_hand():
    # degrees: three close together, of which 20 is nearest to the others; 60, between them and 90; 200 alone
    degrees = torch.tensor([0.0, 60.0, 10.0, 90.0, 20.0, 200.0]).deg2rad()
    features = torch.stack((degrees.cos(), degrees.sin()), dim=1).unsqueeze(0)
    # the margin in block 1 of 12
    order = energy(features, margin=0.825)[0].argsort(descending=True, stable=True)
    assert order[:4].tolist() == [4, 2, 0, 1]
    # two merges among these four: 4 and 0 choose between 2 and 1, and both choose 2; 3 and 5 are protected, 3 has more energy
    evidence = Evidence(features, torch.zeros(1, 6), torch.ones(1, 6), 12)
    _, a = decide(evidence, BATConfig(method="pitome", blocks=(1,), tokens=(4,)))
    assert a.index.tolist() == [[0, 1, 0, 2, 0, 3]]


def test_energy_by_hand():
    # cosines 1, 0.5 and 0: with a margin of 0.5 the last counts exp(-0.5) - 1
    features = torch.tensor([[[1.0, 0.0], [0.5, 0.75**0.5], [0.0, 1.0]]])
    less = torch.tensor(-0.5).expm1()
    wide = 0.75**0.5
    expected = torch.stack((1.5 + less, torch.tensor(1.5 + wide), 1 + wide + less)) / 3
    torch.testing.assert_close(energy(features, margin=0.4999)[0], expected, atol=1e-4, rtol=0)


def test_dpcknn_by_hand():
    # over the nearest two, itself included, rho is exp(-d^2 / 2) of 0.1, 0.1, 0.2, 0.2, 0.2; of 0 and 1 the first is densest,
    # 2 is 0.2 from 1, 3 is 0.7 from 2, 4 is 0.2 from 3: so 3 is the second centre
    evidence = Evidence(LINE, torch.zeros(1, 5), torch.ones(1, 5), 12)
    _, a = decide(evidence, BATConfig(method="dpcknn", blocks=(1,), tokens=(2,), neighbours=2))
    assert a.index.tolist() == [[0, 0, 0, 1, 1]]


def test_kmedoids_by_hand():
    # it begins with 0 and 1, the most important: 2, 3 and 4 join 1, whose cluster is 0.1, 0.3, 1.0, 1.2 with 1.0 in its middle
    # (sums of distances 2.2, 1.8, 1.8, 2.2; 0.3 comes first); then 0.1 joins 0, and of 0.3, 1.0 and 1.2 the middle is 1.0
    evidence = Evidence(LINE, torch.tensor([[0.5, 0.4, 0.1, 0.2, 0.3]]), torch.ones(1, 5), 12)
    _, a = decide(evidence, BATConfig(method="kmedoids", blocks=(1,), tokens=(2,)))
    assert a.index.tolist() == [[0, 0, 0, 1, 1]]


def test_atc_by_hand():
    # degrees: 0 and 10 are nearest; then their cluster and 25 (15 and 25 apart) are nearer than 25 and 60 (35)
    degrees = torch.tensor([0.0, 60.0, 10.0, 25.0, 170.0]).deg2rad()
    evidence = Evidence(
        torch.stack((degrees.cos(), degrees.sin()), dim=1).unsqueeze(0), torch.zeros(1, 5), torch.ones(1, 5), 12
    )
    for tokens, expected in ((4, [0, 1, 0, 2, 3]), (3, [0, 1, 0, 0, 2]), (2, [0, 0, 0, 0, 1])):
        _, a = decide(evidence, BATConfig(method="atc", blocks=(1,), tokens=(tokens,)))
        assert a.index.tolist() == [expected]


@given(st.integers(0, 2**32), st.integers(2, 12), st.data())
def test_atc_is_average_linkage(seed, tokens, data):
    evidence = random_evidence(seed, tokens, batch=1)
    left = data.draw(st.integers(1, tokens - 1))
    _, a = decide(evidence, BATConfig(method="atc", blocks=(1,), tokens=(left,)))
    unit = torch.nn.functional.normalize(evidence.features[0], dim=1)
    distance = (1 - unit @ unit.T).double().clamp(min=0).fill_diagonal_(0)
    tree = linkage(squareform(distance.numpy(), checks=False), "average")
    expected = fcluster(tree, left, "maxclust")
    together = a.index[0].unsqueeze(0) == a.index[0].unsqueeze(1)
    assert together.tolist() == (expected[None] == expected[:, None]).tolist()


def test_the_lot_falls_evenly_and_anew_in_every_block():
    evidence = random_evidence(0, 196)
    kept = []
    for block in range(1, 9):
        config = BATConfig(method="random", blocks=(block,), tokens=(49,))
        (counts,) = config.schedule(depth=12, patches=196)
        a = PLANS["random"].decide(evidence, counts, config)
        assert torch.equal(a.index[0], a.index[1])
        kept.append(a.kept[0])
    often = torch.stack(kept).sum(dim=0)
    # each token stays in a quarter of eight blocks: two, give or take
    assert often.float().mean() == 2
    assert 1 < often.float().var() < 2
    # neighbours do not fall together
    assert abs(torch.corrcoef(torch.stack((kept[0][:-1], kept[0][1:])).float())[0, 1]) < 0.2


def test_more_than_a_matching_can_merge_is_refused_before_the_model_is_touched():
    model = timm.create_model("vit_tiny_patch16_224", img_size=64, depth=4)
    with pytest.raises(ValueError, match="block 1: tome cannot leave 4 of 16 tokens in one step, at least 50% must stay"):
        batvit.patch(model, BATConfig(method="tome", blocks=(1,), tokens=(4,)))
    assert batvit.config_of(model) is None


def test_tomes_own_schedule_runs_in_every_block():
    model = timm.create_model("vit_tiny_patch16_224", img_size=64, depth=4).eval()
    settings = {"similarity": "keys", "weight": "size", "size_aware": True}
    batvit.patch(model, method="tome", blocks=(0, 1, 2, 3), tokens=(14, 12, 10, 8), **settings)
    with batvit.trace(model) as trace, torch.no_grad():
        model(torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0)))
    assert [site.counts.tokens_out for site in trace.sites] == [14, 12, 10, 8]


def test_bat_is_the_core_with_the_counts_and_choices_of_the_configuration():
    evidence = random_evidence(0, 20)
    config = BATConfig(blocks=(1,), tokens=(12,), centres=4, pairs=2, matching="greedy", neighbours=3)
    # attentive = 12 - 4 + 2
    expected = assign(evidence.features, evidence.importance, attentive=10, pairs=2, centres=4, matching="greedy", neighbours=3)
    assert torch.equal(decide(evidence, config)[1].index, expected.index)


def patched(method, **fields):
    torch.manual_seed(0)
    model = timm.create_model("vit_tiny_patch16_224", img_size=64, depth=4, num_classes=5)
    return batvit.patch(model, method=method, blocks=(0, 2), tokens=(11, 6), **fields)


@pytest.mark.parametrize("method", PLANS)
def test_each_image_of_a_batch_is_reduced_as_if_alone(method):
    model, images = patched(method).eval(), torch.randn(3, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        together = model(images)
        alone = torch.cat([model(image.unsqueeze(0)) for image in images])
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("method", PLANS)
def test_a_plan_lets_gradients_through(method):
    model, images = patched(method).train(), torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    model(images).square().mean().backward()
    assert all(parameter.grad.isfinite().all() for parameter in model.parameters())
    assert model.patch_embed.proj.weight.grad.abs().sum() > 0


@pytest.mark.unchecked
@pytest.mark.parametrize("method", PLANS)
def test_a_plan_is_one_graph(method):
    # in float64 no choice hangs on how the graph rounds
    model = patched(method).eval().double()
    images = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    torch.compiler.reset()
    with torch.no_grad():
        found = torch.compile(model, fullgraph=True, backend="aot_eager")(images)
        torch.testing.assert_close(found, model(images), atol=1e-5, rtol=1e-5)
