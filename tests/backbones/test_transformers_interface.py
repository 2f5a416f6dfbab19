"""Sizes enter where an attention computes its softmax, whatever it takes as arguments."""

import pytest
import torch
from families import family

import batvit
from batvit.backbones.registry import anatomy_of
from batvit.reduction.wrapped import unwrapped

KINDS = ["hf_vit", "hf_blip_2", "hf_internvl", "hf_blip", "hf_flava", "hf_data2vec", "hf_yolos"]
KINDS += ["hf_vitpose", "hf_mgp", "hf_idefics3"]


def reduced_block(name):
    model = batvit.patch(family(name, depth=2), keep_rate=0.5, blocks=(0,))
    return unwrapped(anatomy_of(model).blocks[0])


@pytest.mark.parametrize("name", KINDS)
def test_a_token_of_size_two_counts_as_two_equal_ones(name):
    block = reduced_block(name)
    x = torch.randn(2, 7, 48, generator=torch.Generator().manual_seed(0))
    bias = torch.zeros(2, 1, 1, 7)
    bias[..., 4] = torch.tensor(2.0).log()
    twice = torch.cat([x, x[:, 4:5]], dim=1)
    with torch.no_grad():
        found, captured = block.attend(x, bias, {})
        expected, _ = block.attend(twice, None, {})
        plain, _ = block.attend(x, None, {})
    torch.testing.assert_close(found, expected[:, :7], rtol=1e-4, atol=1e-4)
    assert (found - plain).abs().max() > 1e-3
    # importance is the softmax of what was captured
    assert captured.queries.shape == captured.keys.shape == (2, 3, 7, 16)


@pytest.mark.parametrize("name", ["hf_blip", "hf_data2vec", "hf_yolos"])
def test_what_is_captured_are_the_queries_and_keys_that_attend(name):
    block = reduced_block(name)
    x = torch.randn(1, 7, 48, generator=torch.Generator().manual_seed(0))
    attention = block.own_attention(block.attention_module)
    query = getattr(attention, "query", None)
    with torch.no_grad():
        _, captured = block.attend(x, None, {})
        made = attention.qkv(x)[..., :48] if query is None else query(x)
    assert torch.equal(captured.queries.transpose(1, 2).flatten(2), made)
    assert captured.scale == pytest.approx(0.25)
