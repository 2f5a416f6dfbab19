"""An attention module whose queries and keys are captured runs as it is."""

import pytest
import torch
from families import family, pictures
from torch.utils._pytree import tree_leaves

import batvit
from batvit.backbones.registry import anatomy_of
from batvit.reduction.site import reductions

TIMM = ["vit", "siglip", "deit_distilled", "dinov2_registers", "eva02"]


TOWERS = [*TIMM, "open_clip_tower"]


TRANSFORMERS = ["hf_vit", "hf_dinov2", "hf_dinov3", "hf_clip_vision"]


DEPTH, SITES = 5, (1, 3)


def reduced(name):
    return batvit.patch(family(name, DEPTH), keep_rate=0.5, blocks=SITES)


def layers(model, x):
    """What each block leaves, as (B, prefix + N, C)."""
    if hasattr(model, "config"):
        return model(x, output_hidden_states=True).hidden_states[1:]
    if hasattr(model, "transformer"):
        found = model.forward_intermediates(
            x, output_fmt="NLC", output_extra_tokens=True, intermediates_only=True
        )
        pairs = zip(found["image_intermediates_prefix"], found["image_intermediates"], strict=True)
        return [torch.cat(pair, dim=1) for pair in pairs]
    found = model.forward_intermediates(
        x, output_fmt="NLC", return_prefix_tokens=True, intermediates_only=True
    )
    return [y if isinstance(y, torch.Tensor) else torch.cat(y[::-1], dim=1) for y in found]


@pytest.mark.parametrize("name", [*TIMM, *TRANSFORMERS])
@torch.no_grad()
def test_a_hook_on_the_attention_of_a_site_fires_once(name):
    model = reduced(name)
    x, expected, captured = pictures(model), layers(model, pictures(model)), []
    block, reduce = anatomy_of(model).blocks[SITES[1]], reductions(model)[SITES[1]]
    attention = getattr(block, block.parts.attention)
    tokens = anatomy_of(model).prefix + reduce.counts(anatomy_of(model).patches).tokens_in
    hook = attention.register_forward_hook(
        lambda module, args, output: captured.append((module, tree_leaves(output)[0].shape))
    )
    found = layers(model, x)
    hook.remove()
    assert [shape for _, shape in captured] == [(2, tokens, anatomy_of(model).width)]
    for y, z in zip(found, expected, strict=True):
        assert torch.equal(y, z)
