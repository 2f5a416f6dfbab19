"""Rotary rope: merged once a site, carried from block to block, right in every block."""

import pytest
import torch
from families import family, pictures
from torch.utils._pytree import tree_leaves

import batvit
from batvit.backbones.patch import schedule_of
from batvit.backbones.registry import anatomy_of
from batvit.reduction.site import Reduce
from batvit.reduction.tokens import Tokens

# how many rope every block is given
SHARED = {"eva02": 1, "dinov3": 1, "perception_encoder": 1, "hf_dinov3": 2}
SITES = (1, 3)
DEPTH = 6


def reduced(name, blocks=SITES, depth=DEPTH):
    return anatomy_of(batvit.patch(family(name, depth=depth), keep_rate=0.6, blocks=blocks)).tower


@pytest.fixture
def merged(monkeypatch):
    """The number of groups, for every table that is merged."""
    groups, positions = [], Tokens.positions

    def noted(self, table):
        groups.append(self.origin.groups)
        return positions(self, table)

    monkeypatch.setattr(Tokens, "positions", noted)
    return groups


@pytest.mark.parametrize("name", SHARED)
@torch.no_grad()
def test_tables_are_merged_once_a_site(name, merged):
    model = reduced(name)
    model(pictures(model))
    assert merged == [
        groups for counts in schedule_of(model) for groups in [counts.tokens_out] * SHARED[name]
    ]


@pytest.mark.parametrize("name", [*SHARED, "rope_mixed"])
@torch.no_grad()
def test_every_block_has_the_rows_that_it_would_merge_itself(name, monkeypatch):
    model = reduced(name)
    x = pictures(model)
    found = tree_leaves(model(x))
    # without memory, every block merges the rope that it is given
    with_rotary = Tokens.with_rotary
    monkeypatch.setattr(
        Tokens,
        "with_rotary",
        lambda self, rope: with_rotary(
            Tokens(self.x, self.size, self.origin, bias=self.bias), rope
        ),
    )
    for one, other in zip(found, tree_leaves(model(x)), strict=True):
        assert torch.equal(one, other)


@torch.no_grad()
def test_tables_of_a_block_of_its_own_are_merged_in_each(merged):
    # at a site, where the block cannot know what the next one is given, and in every block after the first one
    model = reduced("rope_mixed", blocks=(2,))
    model(pictures(model))
    assert len(merged) == 1 + DEPTH - 3


@torch.no_grad()
def test_nobody_merges_tables_that_nobody_reads(merged):
    model = reduced("eva02", blocks=(DEPTH - 1,))
    model(pictures(model))
    assert merged == []


@torch.no_grad()
def test_the_merging_of_tables_is_a_part_of_the_reduction(monkeypatch):
    inside, positions = [False], Tokens.positions

    def noted(self, table):
        assert inside[0]
        return positions(self, table)

    monkeypatch.setattr(Tokens, "positions", noted)
    model = reduced("dinov3")
    for site in (module for module in model.modules() if isinstance(module, Reduce)):
        site.register_forward_pre_hook(lambda *args: inside.__setitem__(0, True))
        site.register_forward_hook(lambda *args: inside.__setitem__(0, False))
    model(pictures(model))


@pytest.mark.unchecked
@pytest.mark.parametrize("name", ["eva02", "hf_dinov3"])
@torch.no_grad()
def test_a_graph_merges_tables_once_a_site(name, merged):
    model = reduced(name, blocks=(0, 2), depth=4)
    x = pictures(model)
    expected = tree_leaves(model(x))
    eager = list(merged)
    merged.clear()
    program = torch.export.export(model, (x,))
    assert merged == eager
    for one, other in zip(tree_leaves(program.module()(x)), expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-5)


@pytest.mark.unchecked
@torch.no_grad()
def test_a_deeper_compiled_model_merges_no_more_tables():
    def scatters(depth):
        # every sum scatters once
        found = []

        def backend(graph, inputs):
            found.extend(node for node in graph.graph.nodes if "scatter_" in str(node.target))
            return graph.forward

        torch._dynamo.reset()
        model = reduced("eva02", blocks=(0,), depth=depth)
        torch.compile(model, fullgraph=True, backend=backend)(pictures(model))
        return len(found)

    assert scatters(2) == scatters(3) > 0
    torch._dynamo.reset()
