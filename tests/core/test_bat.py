"""Decouple, match and cluster together."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from batvit.config.config import BATConfig
from batvit.core import Assignment, assign, cluster, decouple, match, merge
from batvit.core.decouple import take
from batvit.plans import PLANS, Evidence
from batvit.plans.plan import Counts


@st.composite
def counts(draw, most=14):
    """How many tokens, and counts that fit them."""
    tokens = draw(st.integers(1, most))
    attentive = draw(st.integers(0, tokens))
    inattentive = tokens - attentive
    return tokens, {
        "attentive": attentive,
        "pairs": draw(st.integers(0, attentive // 2)),
        "centres": draw(st.integers(1, inattentive)) if inattentive else 0,
    }


def random_tokens(seed, tokens, batch=2):
    draw = torch.Generator().manual_seed(seed)
    return torch.randn(batch, tokens, 4, generator=draw), torch.rand(batch, tokens, generator=draw)


def test_assign_by_hand():
    # by importance: tokens 0, 2, 3 are attentive, tokens 5, 4, 1 are not
    importance = torch.tensor([[0.3, 0.02, 0.25, 0.2, 0.03, 0.1]])
    features = torch.tensor(
        [[[1.0, 0.0], [2.0, 0.0], [0.0, 1.0], [0.0, 2.0], [0.0, 1.0], [0.0, 0.0]]]
    )
    # match: 0 and 3 choose, 2 is chosen; the cosine of 3 and 2 is 1, of 0 and 2 it is 0. Groups: 2
    # and 3 | 0. cluster: squared distances 5-4: 1, 5-1: 4, 4-1: 5; rho = exp(-mean / 2) of 5, 4, 1:
    # 0.435, 0.368, 0.223; delta: 2, 1, 2; the centres are 5 (0.869) and 1 (0.446), and 4 joins 5.
    # Groups: 5 and 4 | 1.
    a = assign(features, importance, attentive=3, pairs=1, centres=2)
    assert a.index.tolist() == [[1, 3, 0, 0, 2, 2]]
    assert a.groups == 3 - 1 + 2
    # times their importance squared the scores are 8.7e-3, 3.3e-4 and 1.8e-4: the centres are 5 and
    # 4, and 1 joins 5
    again = assign(features, importance, attentive=3, pairs=1, centres=2, importance_power=2.0)
    assert again.index.tolist() == [[1, 2, 0, 0, 3, 2]]


@pytest.mark.parametrize("power", [0.25, 1.0, 2.0])
@given(counts(), st.integers(0, 2**32))
def test_equal_importance_chooses_no_centre_and_none_is_no_hindrance(power, case, seed):
    tokens, fields = case
    features, _ = random_tokens(seed, tokens)
    one, none = torch.ones(2, tokens), torch.zeros(2, tokens)
    assert torch.equal(
        assign(features, one, **fields, importance_power=power).index,
        assign(features, one, **fields).index,
    )
    found = assign(features, none, **fields, importance_power=power)
    assert found.is_total
    assert found.is_onto


@pytest.mark.parametrize("matching", ["bipartite", "greedy"])
@given(counts(), st.integers(0, 2**32), st.none() | st.integers(1, 14))
def test_groups_are_attentive_less_pairs_plus_centres(matching, case, seed, neighbours):
    tokens, fields = case
    features, importance = random_tokens(seed, tokens)
    a = assign(features, importance, **fields, matching=matching, neighbours=neighbours)
    assert (a.tokens, a.groups) == (
        tokens,
        fields["attentive"] - fields["pairs"] + fields["centres"],
    )
    assert a.is_total
    assert a.is_onto
    # the attentive groups come first, then the clusters
    top, rest = decouple(importance).tensor_split([fields["attentive"]], dim=1)
    first = fields["attentive"] - fields["pairs"]
    assert (a.index.gather(1, top) < first).all()
    assert (a.index.gather(1, rest) >= first).all()
    again = assign(features, importance, **fields, matching=matching, neighbours=neighbours)
    assert torch.equal(again.index, a.index)


@pytest.mark.parametrize("matching", ["bipartite", "greedy"])
@given(counts(), st.integers(0, 2**32), st.data())
def test_moving_the_tokens_moves_their_groups(matching, case, seed, data):
    tokens, fields = case
    features, importance = random_tokens(seed, tokens)
    order = data.draw(st.permutations(range(tokens)))
    straight = assign(features, importance, **fields, matching=matching)
    moved = assign(features[:, order], importance[:, order], **fields, matching=matching)
    # importance sorts the tokens, so that even the groups keep their numbers
    assert torch.equal(moved.index, straight.index[:, order])


def test_padding_changes_no_group_of_the_others():
    features, importance = random_tokens(1, 12)
    fields = {"attentive": 4, "pairs": 1, "centres": 3, "neighbours": 2}
    expected = assign(features, importance, **fields).index
    real = torch.ones(features.shape[0], 16, dtype=torch.bool)
    real[:, [0, 5, 6, 15]] = False
    padded = torch.zeros(*real.shape, features.shape[-1]).masked_scatter(
        real.unsqueeze(-1), features
    )
    weighed = torch.zeros(real.shape).masked_scatter(real, importance)
    assert torch.equal(assign(padded, weighed, **fields, real=real).index[real], expected.flatten())
    evidence = Evidence(padded, weighed, real.float(), depth=1, padded=True)
    config = BATConfig(tokens=(6,), blocks=(0,), neighbours=2)
    assert torch.equal(
        PLANS["bat"].decide(evidence, Counts(0, 16, 4, 1, 3, 6), config).index[real],
        expected.flatten(),
    )


def test_assign_joins_match_and_cluster():
    features, importance = random_tokens(0, 12)
    order = decouple(importance)
    top, rest = take(features, order[:, :7]), take(features, order[:, 7:])
    parts = match(top, 3, method="greedy"), cluster(rest, 2, neighbours=3)
    found = assign(
        features, importance, attentive=7, pairs=3, centres=2, matching="greedy", neighbours=3
    )
    assert torch.equal(found.index, Assignment.join(order, *parts).index)


def test_each_image_of_a_batch_is_assigned_as_if_alone():
    features, importance = random_tokens(1, 12, batch=3)
    together = assign(features, importance, attentive=6, pairs=2, centres=3)
    for b in range(3):
        alone = assign(features[b : b + 1], importance[b : b + 1], attentive=6, pairs=2, centres=3)
        assert torch.equal(alone.index[0], together.index[b])


def test_the_plan_is_told_of_the_power_and_padding_stays_no_centre():
    features, importance = random_tokens(2, 12)
    # the last three are padding, which gets no attention
    importance[:, 9:] = 0
    size = (torch.arange(12) < 9).float().expand(2, 12)
    config = BATConfig(importance_power=2.0)
    for attentive, centres in ((2, 3), (3, 6)):
        wanted = {"attentive": attentive, "pairs": 0, "centres": centres, "importance_power": 2.0}
        found = PLANS["bat"].decide(
            Evidence(features, importance, size, 12, padded=True),
            Counts(3, 12, attentive, 0, centres, attentive + centres),
            config,
        )
        assert torch.equal(found.index, assign(features, importance, **wanted, real=size > 0).index)
        assert not torch.equal(found.index, assign(features, importance, **wanted).index)
    # as many centres as real tokens that are not attentive: each real one is alone among its kind
    groups = found.index[:, :9].sort(dim=1).values
    assert (groups == torch.arange(9)).all()


@given(counts())
def test_tokens_that_are_all_alike_are_not_lost(case):
    tokens, fields = case
    a = assign(torch.ones(1, tokens, 3), torch.zeros(1, tokens), **fields)
    assert a.is_total
    assert a.is_onto


@pytest.mark.parametrize("matching", ["bipartite", "greedy"])
def test_shapes_are_known_without_the_data(matching):
    features, importance = torch.empty(2, 20, 8, device="meta"), torch.empty(2, 20, device="meta")
    a = assign(
        features, importance, attentive=9, pairs=3, centres=4, matching=matching, neighbours=5
    )
    assert (a.batch, a.tokens, a.groups) == (2, 20, 10)
    assert merge(features, a, importance).shape == (2, 10, 8)
