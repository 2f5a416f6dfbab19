"""Every plan decides what becomes of every token."""

import copy
import pickle
from functools import cache

import pytest
import timm
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.cluster.hierarchy import cut_tree, linkage
from scipy.spatial.distance import squareform

import batvit
from batvit.budget import macs_of
from batvit.config import BATConfig
from batvit.config.presets import PRESETS
from batvit.core import assign
from batvit.plans import PLANS, Evidence, diffrate, mctf, tofu
from batvit.plans.evit import combine
from batvit.plans.pitome import energy
from batvit.plans.tome import bipartite_soft_matching
from batvit.reduction.schedule import schedule


def random_evidence(seed, tokens, batch=2):
    draw = torch.Generator().manual_seed(seed)
    size = torch.randint(1, 5, (batch, tokens), generator=draw).float()
    return Evidence(
        torch.randn(batch, tokens, 4, generator=draw),
        torch.rand(batch, tokens, generator=draw),
        size,
        12,
    )


def decide(evidence, config):
    """The counts at the one site of a configuration, and what its plan makes of the evidence."""
    (counts,) = schedule(config, depth=2, patches=evidence.importance.shape[1])
    return counts, PLANS[config.method].decide(evidence, counts, config)


ALONE = ("topk", "random", "ats")


def test_the_plans_have_these_names():
    merging = (
        "bat",
        "evit",
        "tome",
        "pitome",
        "tofu",
        "mctf",
        "dpcknn",
        "kmedoids",
        "atc",
        "atc_complete",
        "atc_single",
    )
    expected = dict.fromkeys((*ALONE, "diffrate"), True) | dict.fromkeys(merging, False)
    assert {name: plan.drops for name, plan in PLANS.items()} == expected


def test_what_the_papers_weigh_and_compare():
    plain = ("importance", False, "tokens")
    sizes = ("size", True, "keys")
    expected = dict.fromkeys(PLANS, plain) | dict.fromkeys(
        ("tome", "pitome", "tofu", "atc", "atc_complete", "atc_single"), sizes
    )
    expected |= {"bat": ("importance", True, "tokens"), "diffrate": ("size", True, "tokens")}
    expected |= {"mctf": ("importance_size", True, "tokens")}
    configs = {name: BATConfig(method=name, **plan.paper_fields) for name, plan in PLANS.items()}
    assert {name: (c.weight, c.size_aware, c.similarity) for name, c in configs.items()} == expected


@pytest.mark.parametrize("method", PLANS)
def test_a_plan_says_how_its_paper_uses_it(method):
    plan = PLANS[method]
    config = BATConfig(method=method, **plan.paper_fields)
    assert {"weight", "size_aware"} <= set(plan.paper_fields) <= set(config.to_dict())
    assert plan.site_rule == {
        "tome": "blocks",
        "pitome": "rates",
        "tofu": "blocks",
        "mctf": "blocks",
        "diffrate": "list",
    }.get(method, "sites")
    assert plan.first_block == {"mctf": 1}.get(method, 0)
    with pytest.raises(TypeError):
        plan.paper_fields["align"] = 8
    for twin in (copy.deepcopy(plan), pickle.loads(pickle.dumps(plan))):
        for name in ("paper_fields", "site_rule", "first_block", "drops", "max_reduction"):
            assert getattr(twin, name) == getattr(plan, name)


def test_bat_is_published_as_its_training_free_preset_without_alignment():
    assert PLANS["bat"].paper_fields | {"align": 16} == PRESETS["training-free"]


@pytest.mark.parametrize("method", PLANS)
@given(
    st.integers(0, 2**32),
    st.integers(1, 20),
    st.floats(0.05, 1),
    st.floats(0, 1),
    st.floats(0, 0.5),
)
def test_a_plan_keeps_its_counts(method, seed, tokens, keep_rate, centres, pairs):
    keep_rate = max(keep_rate, 1 - PLANS[method].max_reduction)
    config = BATConfig(
        method=method, blocks=(1,), keep_rate=keep_rate, centres=centres, pairs=pairs
    )
    evidence = random_evidence(seed, tokens)
    counts, a = decide(evidence, config)
    assert (a.batch, a.tokens, a.groups) == (2, tokens, counts.tokens_out)
    assert a.is_onto
    # who drops loses all but one token a group, or some of them; who does not loses none
    merges = 0 if method in ALONE else diffrate.merges_of(counts)
    kept = counts.tokens_out + merges if PLANS[method].drops else tokens
    assert a.kept.sum(dim=1).tolist() == [kept] * 2
    assert torch.equal(decide(evidence, config)[1].index, a.index)


@pytest.mark.parametrize("method", PLANS)
def test_a_plan_needs_no_data_to_know_its_shapes(method):
    config = BATConfig(method=method, blocks=(1,), keep_rate=0.5)
    counts, a = decide(
        Evidence(*(part.to("meta") for part in random_evidence(0, 20)[:3]), 12), config
    )
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
    torch.testing.assert_close(
        combine(x, evidence, a), torch.tensor([[[0.0, 2.0], [4.0, 4.0], [1.6, 0.0]]])
    )


def test_a_plan_that_combines_in_its_own_way_is_heard():
    torch.manual_seed(0)
    model = timm.create_model("vit_tiny_patch16_224", img_size=64, depth=4).eval()
    images = torch.randn(2, 3, 64, 64)
    batvit.patch(model, method="evit", mode="paper", blocks=(1,), tokens=(6,))
    heard = []
    model.blocks[1].reduce.register_forward_hook(
        lambda module, args, tokens: heard.append((args[0].x, tokens.x))
    )
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
    # after a class token, 1, 3, 5 choose among 0, 2, 4: 1 is most like 0 (cosine 0.6), 3 like 2
    # (1), 5 like 4 (0.8); two merge
    features = torch.tensor(
        [[[1.0, 0.0], [0.6, -0.8], [0.0, 2.0], [0.0, 5.0], [-3.0, 0.0], [-0.8, -0.6]]]
    )
    evidence = Evidence(features, torch.zeros(1, 6), torch.ones(1, 6), 12)
    _, a = decide(evidence, BATConfig(method="tome", blocks=(1,), tokens=(4,)))
    # 1, which stays alone, leads the others
    assert a.index.tolist() == [[1, 0, 2, 2, 3, 3]]


def test_tome_keeps_who_stays_alone_in_the_order_of_the_image():
    # 1 is less like 0 than 3 is like 2
    features = torch.tensor([[[1.0, 0.0], [0.6, 0.8], [0.0, 1.0], [0.1, 1.0]]])
    assert bipartite_soft_matching(features, 0).index.tolist() == [[2, 0, 3, 1]]


def test_ats_by_hand():
    importance = torch.tensor([[0.1, 0.6, 0.1, 0.05, 0.15]])
    evidence = Evidence(torch.zeros(1, 5, 1), importance, torch.ones(1, 5), 12)
    # sums 0.1, 0.7, 0.8, 0.85, 1.0 reach 1/6 and 3/6 at token 1, and 5/6 at token 3; the place left
    # goes to 4
    _, a = decide(evidence, BATConfig(method="ats", blocks=(1,), tokens=(3,)))
    assert a.index.tolist() == [[-1, 0, -1, 1, 2]]


def at_angles(*degrees):
    turned = torch.tensor(degrees).deg2rad()
    return torch.stack((turned.cos(), turned.sin()), dim=1).unsqueeze(0)


def test_diffrate_by_hand():
    # 3 of 5 go, of which a rounded 0.49 * 3 = 1 is merged: 1 and 3 stay, 2 joins 3, the less
    # important 0 and 4 are lost
    evidence = Evidence(
        at_angles(0.0, 10.0, 80.0, 70.0, 0.0),
        torch.tensor([[0.1, 0.4, 0.2, 0.3, 0.05]]),
        torch.ones(1, 5),
        12,
    )
    _, a = decide(evidence, BATConfig(method="diffrate", blocks=(1,), tokens=(2,)))
    assert a.index.tolist() == [[-1, 0, 1, 1, -1]]


def test_diffrate_merges_as_many_as_published():
    # deit_small at 2.9: of 193 patches the third block prunes 4 and merges 14
    config = diffrate.schedule("deit_small", 2.9)
    counts = schedule(config, depth=12, patches=196, prefix=1)
    assert counts[2][1] == 193
    a = PLANS["diffrate"].decide(random_evidence(0, 193), counts[2], config)
    assert (a.groups, a.kept.sum(dim=1).tolist()) == (175, [189, 189])
    # a count above an earlier one takes nothing away
    config = diffrate.schedule("deit_tiny", 1.0)
    assert config.tokens == (196, 196, 195, 189, 185, 153, 147, 147, 144, 134, 124, 20)
    assert diffrate.merges_of(schedule(config, depth=12, patches=196)[7]) == 0


def test_an_unknown_schedule_is_refused():
    with pytest.raises(
        ValueError,
        match=r"no published schedule of 'deit_small' at 2.4 G MACs; .* deit_small: 2.3, 2.5, 2.7",
    ):
        diffrate.schedule("deit_small", 2.4)
    with pytest.raises(ValueError, match="no published schedule of 'vit'"):
        diffrate.schedule("vit", 2.3)


@cache
def shadow(architecture):
    with torch.device("meta"):
        return timm.create_model(f"{architecture}_patch16_224")


def gmacs(architecture, config):
    return macs_of(shadow(architecture), config) / 1e9


MISSED = {("deit_tiny", 0.6): 0.657, ("deit_tiny", 0.7): 0.729}


@pytest.mark.parametrize(
    ("architecture", "published"),
    [(a, g) for a, known in diffrate.SCHEDULES.items() for g in known],
)
def test_diffrates_schedules_take_what_is_published(architecture, published):
    # two of them were published under a budget that they do not meet
    expected = MISSED.get((architecture, published), published)
    assert gmacs(architecture, diffrate.schedule(architecture, published)) == pytest.approx(
        expected, rel=0.015
    )


@pytest.mark.parametrize(("r", "published"), [(13, 2.7), (16, 2.3)])
def test_tomes_schedules_take_what_is_published(r, published):
    tokens, left = [], 196
    for _ in range(12):
        left -= min(r, left // 2)
        tokens.append(left)
    config = BATConfig(
        method="tome", tokens=tuple(tokens), blocks=tuple(range(12)), **PLANS["tome"].paper_fields
    )
    assert gmacs("deit_small", config) == pytest.approx(published, rel=0.03)


@pytest.mark.parametrize(("keep_rate", "published"), [(0.7, 3.0), (0.5, 2.3)])
def test_evits_keep_rates_take_what_is_published(keep_rate, published):
    config = BATConfig(method="evit", keep_rate=keep_rate, **PLANS["evit"].paper_fields)
    assert gmacs("deit_small", config) == pytest.approx(published, rel=0.03)


def test_attraction_by_hand():
    evidence = Evidence(
        at_angles(0.0, 90.0), torch.tensor([[0.5, 0.1]]), torch.tensor([[2.0, 3.0]]), 12
    )
    found = mctf.attractions(evidence, slice(0, 1), slice(1, 2))
    torch.testing.assert_close(found, torch.tensor([[[0.5 * 0.05 ** (-1 / 20) * 6 ** (-1 / 40)]]]))


def test_mctf_by_hand():
    features, ones = at_angles(0.0, 5.0, 90.0, 80.0, 180.0, 200.0), torch.ones(1, 6)
    config = BATConfig(method="mctf", blocks=(1,), tokens=(4,))
    # alike alone: first 0 joins 5 degrees; then, of 2.5, 80 and 200, 80 joins 90
    _, a = decide(Evidence(features, torch.full((1, 6), 0.1), ones, 12), config)
    assert a.index.tolist() == [[3, 3, 0, 0, 1, 2]]
    # where 0 and 5 are important, 90 joins 80 and then 200 joins 180
    _, a = decide(
        Evidence(features, torch.tensor([[0.4, 0.4, 0.01, 0.01, 0.01, 0.01]]), ones, 12), config
    )
    assert a.index.tolist() == [[1, 2, 3, 3, 0, 0]]
    # what was fused may go on: 0 joins 1, and both join 3
    features, ones = at_angles(0.0, 1.0, 3.0, 100.0), torch.ones(1, 4)
    _, a = decide(
        Evidence(features, 0.1 * ones, ones, 12), BATConfig(method="mctf", blocks=(1,), tokens=(2,))
    )
    assert a.index.tolist() == [[0, 0, 0, 1]]


def test_tofu_by_hand():
    # 1 and 3 choose among 0 and 2: 1 is most like 0 (cosine 0.6), 3 is at right angles to both
    x = torch.tensor([[[1.0, 0.0], [3.0, 4.0], [-1.0, 0.0], [0.0, -1.0]]])
    evidence = Evidence(
        x, torch.zeros(1, 4), torch.tensor([[3.0, 1.0, 1.0, 1.0]]), depth=12, block=5
    )
    _, a = decide(evidence, BATConfig(method="tofu", blocks=(1,), tokens=(3,)))
    assert a.index.tolist() == [[1, 1, 2, 0]]
    alone, other = [0.0, -1.0], [-1.0, 0.0]
    # in the first half of the blocks the chosen stays as it is
    torch.testing.assert_close(
        tofu.combine(x, evidence, a), torch.tensor([[alone, [1.0, 0.0], other]])
    )
    # in the second the mean, (6, 4) / 4, is as long as the longer, 5
    mean = [5 * 6 / 52**0.5, 5 * 4 / 52**0.5]
    torch.testing.assert_close(
        tofu.combine(x, evidence._replace(block=6), a), torch.tensor([[alone, mean, other]])
    )


@pytest.mark.parametrize("block", [0, 6])
def test_tofu_takes_nothing_of_padding(block):
    # two tokens, of which the second, or the first, which is chosen, is padding
    x = torch.tensor([[[3.0, 4.0], [1e4, 1e4]], [[1e4, 1e4], [3.0, 4.0]]])
    evidence = Evidence(
        x, torch.zeros(2, 2), torch.tensor([[2.0, 0.0], [0.0, 2.0]]), depth=12, block=block
    )
    _, a = decide(evidence, BATConfig(method="tofu", blocks=(1,), tokens=(1,)))
    torch.testing.assert_close(
        tofu.combine(x, evidence, a), torch.tensor([[[3.0, 4.0]], [[3.0, 4.0]]])
    )


def test_tofu_knows_in_which_block_it_is():
    torch.manual_seed(0)
    model = timm.create_model("vit_tiny_patch16_224", img_size=64, depth=4).eval()
    batvit.patch(model, method="tofu", blocks=(1, 2), tokens=(10, 6), **PLANS["tofu"].paper_fields)
    heard = []
    for block in (1, 2):
        model.blocks[block].reduce.register_forward_hook(
            lambda module, args, tokens: heard.append((args[0].x, tokens.x))
        )
    with torch.no_grad():
        model(torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0)))
    unchanged = [
        (after[:, :, None] == before[:, None]).all(dim=-1).any(dim=-1) for before, after in heard
    ]
    assert unchanged[0].all()
    # ten tokens: at least two stay alone, and at least one of six groups has several members
    assert not unchanged[1].all(dim=1).any()
    norms = [x.norm(dim=-1) for x in heard[1]]
    assert (norms[1].unsqueeze(2) - norms[0].unsqueeze(1)).abs().amin(dim=2).max() < 1e-4


LINE = torch.tensor([0.0, 0.1, 0.3, 1.0, 1.2]).view(1, 5, 1)


def test_pitome_by_hand():
    # degrees: three close together, of which 20 is nearest to the others; 60, between them and 90;
    # 200 alone
    degrees = torch.tensor([0.0, 60.0, 10.0, 90.0, 20.0, 200.0]).deg2rad()
    features = torch.stack((degrees.cos(), degrees.sin()), dim=1).unsqueeze(0)
    # the margin in block 1 of 12
    order = energy(features, margin=0.825)[0].argsort(descending=True, stable=True)
    assert order[:4].tolist() == [4, 2, 0, 1]
    # two merges among these four: 4 and 0 choose between 2 and 1, and both choose 2; 3 and 5 are
    # protected, 3 has more energy
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
    # over the nearest two, itself included, rho is exp(-d^2 / 2) of 0.1, 0.1, 0.2, 0.2, 0.2; of 0
    # and 1 the first is densest, 2 is 0.2 from 1, 3 is 0.7 from 2, 4 is 0.2 from 3: so 3 is the
    # second centre
    evidence = Evidence(LINE, torch.zeros(1, 5), torch.ones(1, 5), 12)
    _, a = decide(evidence, BATConfig(method="dpcknn", blocks=(1,), tokens=(2,), neighbours=2))
    assert a.index.tolist() == [[0, 0, 0, 1, 1]]


def test_kmedoids_by_hand():
    # it begins with 0 and 1, the most important: 2, 3 and 4 join 1, whose cluster is 0.1, 0.3, 1.0,
    # 1.2 with 1.0 in its middle (sums of distances 2.2, 1.8, 1.8, 2.2; 0.3 comes first); then 0.1
    # joins 0, and of 0.3, 1.0 and 1.2 the middle is 1.0
    evidence = Evidence(LINE, torch.tensor([[0.5, 0.4, 0.1, 0.2, 0.3]]), torch.ones(1, 5), 12)
    _, a = decide(evidence, BATConfig(method="kmedoids", blocks=(1,), tokens=(2,)))
    assert a.index.tolist() == [[0, 0, 0, 1, 1]]


def test_atc_by_hand():
    # degrees: 0 and 10 are nearest; then their cluster and 25 (15 and 25 apart) are nearer than 25
    # and 60 (35)
    evidence = Evidence(
        at_angles(0.0, 60.0, 10.0, 25.0, 170.0), torch.zeros(1, 5), torch.ones(1, 5), 12
    )
    for tokens, expected in ((4, [0, 1, 0, 2, 3]), (3, [0, 1, 0, 0, 2]), (2, [0, 0, 0, 0, 1])):
        _, a = decide(evidence, BATConfig(method="atc", blocks=(1,), tokens=(tokens,)))
        assert a.index.tolist() == [expected]


@pytest.mark.parametrize(
    ("method", "expected"), [("atc_single", [0, 0, 0, 1]), ("atc_complete", [0, 0, 1, 1])]
)
def test_linkages_by_hand(method, expected):
    # degrees: 0 and 20 join; then 50 is 30 from the near end of that pair, 50 from the far one, and
    # 40 from 90
    evidence = Evidence(at_angles(0.0, 20.0, 50.0, 90.0), torch.zeros(1, 4), torch.ones(1, 4), 12)
    _, a = decide(evidence, BATConfig(method=method, blocks=(1,), tokens=(2,)))
    assert a.index.tolist() == [expected]


@pytest.mark.parametrize(
    ("method", "name"), [("atc", "average"), ("atc_complete", "complete"), ("atc_single", "single")]
)
@given(st.integers(0, 2**32), st.integers(2, 12), st.data())
def test_the_linkages_are_the_known_ones(method, name, seed, tokens, data):
    evidence = random_evidence(seed, tokens, batch=1)
    left = data.draw(st.integers(1, tokens - 1))
    _, a = decide(evidence, BATConfig(method=method, blocks=(1,), tokens=(left,)))
    unit = torch.nn.functional.normalize(evidence.features[0], dim=1)
    distance = (1 - unit @ unit.T).double().clamp(min=0).fill_diagonal_(0)
    tree = linkage(squareform(distance.numpy(), checks=False), name)
    expected = cut_tree(tree, left)[:, 0]
    together = a.index[0].unsqueeze(0) == a.index[0].unsqueeze(1)
    assert together.tolist() == (expected[None] == expected[:, None]).tolist()


def test_the_lot_falls_evenly_and_anew_in_every_block():
    evidence = random_evidence(0, 196)
    kept = []
    for block in range(1, 9):
        config = BATConfig(method="random", blocks=(block,), tokens=(49,))
        (counts,) = schedule(config, depth=12, patches=196)
        a = PLANS["random"].decide(evidence, counts, config)
        assert torch.equal(a.index[0], a.index[1])
        kept.append(a.kept[0])
    often = torch.stack(kept).sum(dim=0)
    # each token stays in a quarter of eight blocks: two, give or take
    assert often.float().mean() == 2
    assert 1 < often.float().var() < 2
    # neighbours do not fall together
    assert abs(torch.corrcoef(torch.stack((kept[0][:-1], kept[0][1:])).float())[0, 1]) < 0.2


def test_tomes_own_schedule_runs_in_every_block():
    model = timm.create_model("vit_tiny_patch16_224", img_size=64, depth=4).eval()
    settings = {"similarity": "keys", "weight": "size", "size_aware": True}
    batvit.patch(model, method="tome", blocks=(0, 1, 2, 3), tokens=(14, 12, 10, 8), **settings)
    with batvit.trace(model) as trace, torch.no_grad():
        model(torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0)))
    assert [site.counts.tokens_out for site in trace.sites] == [14, 12, 10, 8]


def test_bat_is_the_core_with_the_counts_and_choices_of_the_configuration():
    evidence = random_evidence(0, 20)
    config = BATConfig(
        blocks=(1,), tokens=(12,), centres=4, pairs=2, matching="greedy", neighbours=3
    )
    # attentive = 12 - 4 + 2
    expected = assign(
        evidence.features,
        evidence.importance,
        attentive=10,
        pairs=2,
        centres=4,
        matching="greedy",
        neighbours=3,
    )
    assert torch.equal(decide(evidence, config)[1].index, expected.index)


def patched(method, **fields):
    torch.manual_seed(0)
    model = timm.create_model("vit_tiny_patch16_224", img_size=64, depth=3, num_classes=5)
    return batvit.patch(model, method=method, blocks=(0, 1), tokens=(11, 6), **fields)


@pytest.mark.parametrize("method", PLANS)
def test_each_image_of_a_batch_is_reduced_as_if_alone(method):
    model, images = (
        patched(method).eval(),
        torch.randn(3, 3, 64, 64, generator=torch.Generator().manual_seed(0)),
    )
    with torch.no_grad():
        together = model(images)
        alone = torch.cat([model(image.unsqueeze(0)) for image in images])
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("method", PLANS)
def test_a_plan_lets_gradients_through(method):
    model, images = (
        patched(method).train(),
        torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0)),
    )
    model(images).square().mean().backward()
    assert all(parameter.grad.isfinite().all() for parameter in model.parameters())
    assert model.patch_embed.proj.weight.grad.abs().sum() > 0


@pytest.mark.unchecked
@pytest.mark.parametrize("method", PLANS)
def test_a_plan_is_one_graph(method):
    # in float64 no choice hangs on how the graph rounds
    model = patched(method).eval().double()
    images = torch.randn(
        2, 3, 64, 64, generator=torch.Generator().manual_seed(0), dtype=torch.float64
    )
    torch.compiler.reset()
    with torch.no_grad():
        found = torch.compile(model, fullgraph=True, backend="aot_eager")(images)
        torch.testing.assert_close(found, model(images), atol=1e-5, rtol=1e-5)


class Applied(torch.nn.Module):
    """A plan at a site of 20 tokens, of which 12 go on, and what it makes of their features."""

    def __init__(self, method):
        super().__init__()
        self.plan, self.config = PLANS[method], BATConfig(method=method, blocks=(1,), tokens=(12,))
        (self.counts,) = schedule(self.config, depth=12, patches=20)

    def forward(self, features, importance, size):
        evidence = Evidence(features, importance, size, 12, 1)
        a = self.plan.decide(evidence, self.counts, self.config)
        return a.index, (merge if self.plan.combine is None else self.plan.combine)(
            features, evidence, a
        )


def merge(features, evidence, assignment):
    return batvit.core.merge(features, assignment, evidence.size)


@pytest.mark.unchecked
@pytest.mark.parametrize("method", PLANS)
def test_a_plan_is_exported_for_any_number_of_images(method):
    applied, known = Applied(method), random_evidence(0, 20, batch=3)[:3]
    batch = torch.export.Dim("batch")
    with torch.no_grad():
        program = torch.export.export(applied, known, dynamic_shapes=({0: batch},) * 3)
        fewer = tuple(part[:2] for part in known)
        for found, expected in zip(program.module()(*fewer), applied(*fewer), strict=True):
            torch.testing.assert_close(found, expected)
