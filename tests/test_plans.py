"""Every plan decides what becomes of every token."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from batvit.config import BATConfig
from batvit.core import assign
from batvit.plans import PLANS, Evidence


def random_evidence(seed, tokens, batch=2):
    draw = torch.Generator().manual_seed(seed)
    size = torch.randint(1, 5, (batch, tokens), generator=draw).float()
    return Evidence(torch.randn(batch, tokens, 4, generator=draw), torch.rand(batch, tokens, generator=draw), size)


def decide(evidence, config):
    """The counts at the one site of a configuration, and what its plan makes of the evidence."""
    (counts,) = config.schedule(depth=2, patches=evidence.importance.shape[1])
    return counts, PLANS[config.method].decide(evidence, counts, config)


def test_the_plans_have_these_names():
    assert {name: plan.drops for name, plan in PLANS.items()} == {"bat": False, "topk": True}


@pytest.mark.parametrize("method", PLANS)
@given(st.integers(0, 2**32), st.integers(1, 20), st.floats(0.05, 1), st.floats(0, 1), st.floats(0, 0.5))
def test_a_plan_keeps_its_counts(method, seed, tokens, keep_rate, centres, pairs):
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
    counts, a = decide(Evidence(*(part.to("meta") for part in random_evidence(0, 20))), config)
    assert (a.tokens, a.groups) == (20, counts.tokens_out)


def test_topk_by_hand():
    importance = torch.tensor([[0.1, 0.4, 0.2, 0.4]])
    evidence = Evidence(torch.zeros(1, 4, 1), importance, torch.ones(1, 4))
    # the two of 0.4 stay, the earlier first
    _, a = decide(evidence, BATConfig(method="topk", blocks=(1,), keep_rate=0.5))
    assert a.index.tolist() == [[-1, 0, -1, 1]]


def test_bat_is_the_core_with_the_counts_and_choices_of_the_configuration():
    evidence = random_evidence(0, 20)
    config = BATConfig(blocks=(1,), tokens=(12,), centres=4, pairs=2, matching="greedy", neighbours=3)
    # attentive = 12 - 4 + 2
    expected = assign(evidence.features, evidence.importance, attentive=10, pairs=2, centres=4, matching="greedy", neighbours=3)
    assert torch.equal(decide(evidence, config)[1].index, expected.index)
