"""What goes from block to block: sizes and their bias, rotary tables merged once a site."""

from dataclasses import replace
from math import inf, log

import pytest
import torch
from families import family, pictures
from timm.models.vision_transformer import Block
from torch.utils._pytree import tree_leaves

import batvit
from batvit.backbones.patch import schedule_of
from batvit.backbones.registry import anatomy_of
from batvit.core import Assignment
from batvit.reduction.site import Reduce
from batvit.reduction.tokens import Tokens


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
def test_the_bias_is_the_logarithm_of_the_sizes(dtype):
    # two prefix tokens, three groups
    tokens = Tokens(
        torch.zeros(1, 5, 2, dtype=dtype),
        torch.tensor([[1, 2, 5]]),
        Assignment.identity(1, 3),
    )
    biased = tokens.with_size_bias(size_aware=True)
    assert tokens.bias is None
    assert torch.equal(
        biased.bias, torch.tensor([0, 0, 0, log(2), log(5)]).view(1, 1, 1, 5).to(dtype)
    )
    assert biased.with_size_bias(size_aware=False).bias is None
    half = torch.tensor([0, 0, 0, log(2) / 2, log(5) / 2]).view(1, 1, 1, 5)
    torch.testing.assert_close(
        tokens.with_size_bias(size_aware=True, size_power=0.5).bias, half.to(dtype)
    )


def test_padding_is_attended_to_by_none_whether_sizes_count_or_not():
    tokens = Tokens.start(torch.zeros(1, 3, 2), 1, torch.tensor([[True, False]]))
    assert tokens.bias.flatten().tolist() == [0, 0, -inf]
    merged = replace(tokens, sizes=torch.tensor([[2, 0]]))
    assert merged.with_size_bias(size_aware=False).bias.flatten().tolist() == [0, 0, -inf]
    torch.testing.assert_close(
        merged.with_size_bias(size_aware=True).bias.flatten(), torch.tensor([0, log(2), -inf])
    )


def test_a_size_aware_token_counts_as_its_copies():
    # two equal tokens merged into one of size 2 get the attention that the two got
    model = family("vit")
    block = model.blocks[2]
    x = torch.randn(1, 5, 48, generator=torch.Generator().manual_seed(0))
    doubled = torch.cat([x, x[:, -1:]], dim=1)
    sizes = torch.tensor([[1, 1, 1, 2]])
    tokens = Tokens(x, sizes, Assignment.identity(1, 4)).with_size_bias(size_aware=True)
    with torch.no_grad():
        torch.testing.assert_close(
            block(x, attn_mask=tokens.bias), block(doubled)[:, :5], rtol=1e-5, atol=1e-5
        )


def test_at_a_power_of_half_four_patches_count_as_two():
    # a token of size 4 gets the attention that two copies of it get
    model = batvit.patch(family("vit"), blocks=(2,), size_power=0.5)
    tokens = Tokens(torch.randn(1, 5, 48), torch.tensor([[1, 1, 1, 4]]), Assignment.identity(1, 4))
    biased = tokens.with_size_bias(
        model.blocks[2].reduce.config.size_aware, model.blocks[2].reduce.config.size_power
    )
    with torch.no_grad():
        found = Block.forward(model.blocks[2], biased.x, attn_mask=biased.bias)
        expected = Block.forward(model.blocks[2], torch.cat([tokens.x, tokens.x[:, -1:]], dim=1))[
            :, :5
        ]
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


# how many rotary tables every block is given
SHARED = {"eva02": 1, "dinov3": 1, "perception_encoder": 1, "hf_dinov3": 2}


SITES = (1, 3)


DEPTH = 6


def reduced(name, blocks=SITES, depth=DEPTH):
    return anatomy_of(batvit.patch(family(name, depth=depth), keep_rate=0.6, blocks=blocks)).tower


@pytest.fixture
def merged(monkeypatch):
    """The number of groups, for every table that is merged."""
    groups = []
    merge_table = Tokens.merge_table

    def noted(self, table):
        groups.append(self.origin.groups)
        return merge_table(self, table)

    monkeypatch.setattr(Tokens, "merge_table", noted)
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
    # without memory, every block merges the tables that it is given
    with_rotary = Tokens.with_rotary
    monkeypatch.setattr(
        Tokens,
        "with_rotary",
        lambda self, rope: with_rotary(
            Tokens(self.x, self.sizes, self.origin, bias=self.bias), rope
        ),
    )
    for one, other in zip(found, tree_leaves(model(x)), strict=True):
        assert torch.equal(one, other)


@torch.no_grad()
def test_tables_of_a_block_of_its_own_are_merged_in_each(merged):
    # at a site, where the block cannot know what the next one is given, and in every block after
    # the first one
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
    inside = [False]
    merge_table = Tokens.merge_table

    def noted(self, table):
        assert inside[0]
        return merge_table(self, table)

    monkeypatch.setattr(Tokens, "merge_table", noted)
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
