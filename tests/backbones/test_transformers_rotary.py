"""Layers that are given rotary tables: those of merged tokens are means."""

import pytest
import torch
from families import family, pictures

import batvit
from batvit.backbones.registry import anatomy_of


@pytest.mark.parametrize("name", ["hf_mlcd", "hf_dinov3"])
def test_merged_tokens_have_the_mean_of_their_rows(name):
    model = batvit.patch(family(name), keep_rate=0.5, blocks=(1,))
    after = anatomy_of(model).blocks[2]
    given = []
    run_whole = after._run_whole

    def spy(tokens, arguments):
        given.append((tokens, arguments["position_embeddings"]))
        return run_whole(tokens, arguments)

    after._run_whole = spy
    with torch.no_grad(), batvit.trace(model) as trace:
        model(pictures(model))
    ((tokens, tables),) = given
    groups = trace.sites[0].origin
    for table, rows in zip(tables, tokens.rope, strict=True):
        table = table.unsqueeze(0)[:, -groups.groups :] if name == "hf_mlcd" else table[:, 0]
        expected = batvit.merge(rows.expand(2, -1, -1), groups)
        torch.testing.assert_close(table, expected)


def test_prefix_tokens_keep_their_rows():
    model = batvit.patch(family("hf_mlcd"), keep_rate=0.5, blocks=(1,))
    block = anatomy_of(model).blocks[2]
    tables = (torch.randn(37, 16), torch.randn(37, 16))
    merged = tuple(torch.randn(2, 1, 9, 16) for _ in tables)
    found = block.with_rope({"position_embeddings": tables}, merged)["position_embeddings"]
    for table, row, groups in zip(found, tables, merged, strict=True):
        whole = table.unsqueeze(0)
        assert whole.shape == (2, 10, 16)
        assert torch.equal(whole[:, 0], row[:1].expand(2, -1))
        assert torch.equal(whole[:, 1:], groups[:, 0])
