"""An attention module whose queries and keys are captured runs as it is."""

from types import MethodType

import pytest
import torch
from accelerate.hooks import ModelHook, add_hook_to_module
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


def attention_of(model, block):
    return getattr(block, block.parts.attention)


@pytest.mark.parametrize("name", ["vit", "eva02", "hf_vit"])
def test_a_method_put_on_the_attention_after_patch_runs_at_every_site(name):
    model = reduced(name)
    x = pictures(model)
    expected = layers(model, x)
    calls = []

    def watched(own):
        def forward(self, *args, **arguments):
            calls.append(own)
            return own(self, *args, **arguments)

        return forward

    for block in anatomy_of(model).blocks:
        attention = attention_of(model, block) if hasattr(block, "parts") else None
        if attention is not None:
            attention.forward = MethodType(watched(type(attention).forward), attention)
    found = layers(model, x)
    assert len(calls) == DEPTH - SITES[0]
    for y, z in zip(found, expected, strict=True):
        assert torch.equal(y, z)


@pytest.mark.parametrize("name", ["vit", "eva02", "hf_vit"])
def test_what_such_a_method_keeps_is_kept_by_the_attention(name):
    model = reduced(name)
    attentions = [attention_of(model, block) for block in anatomy_of(model).blocks[SITES[0] :]]
    own = type(attentions[0]).forward

    def forward(self, x, *args, **arguments):
        self.seen = x.shape[1]
        return own(self, x, *args, **arguments)

    for attention in attentions:
        attention.forward = MethodType(forward, attention)
    layers(model, pictures(model))
    counts = [attention.seen for attention in attentions]
    assert len(counts) == DEPTH - SITES[0]
    assert counts == sorted(counts, reverse=True)
    assert counts[0] > counts[-1]


@pytest.mark.parametrize("name", ["vit", "eva02", "hf_vit"])
def test_what_accelerate_puts_on_the_attention_runs_at_every_site(name):
    model = reduced(name)
    x = pictures(model)
    expected = layers(model, x)
    seen = []

    class Watch(ModelHook):
        def pre_forward(self, module, *args, **arguments):
            seen.append(module)
            return args, arguments

    attentions = [attention_of(model, block) for block in anatomy_of(model).blocks[SITES[0] :]]
    for attention in attentions:
        add_hook_to_module(attention, Watch())
    found = layers(model, x)
    assert len(seen) == len(attentions)
    for y, z in zip(found, expected, strict=True):
        assert torch.equal(y, z)


@pytest.mark.parametrize("name", ["vit", "eva02", "hf_vit"])
def test_a_forward_in_which_nothing_can_be_heard_is_refused_at_the_call(name):
    model = reduced(name)
    attention = attention_of(model, anatomy_of(model).blocks[SITES[0]])
    own = attention.forward
    attention.forward = lambda *args, **arguments: own(*args, **arguments)
    with pytest.raises(ValueError, match=r"forward of a \w+ was replaced.*batvit.unpatch"):
        layers(model, pictures(model))


@pytest.mark.parametrize("name", ["vit", "eva02", "hf_vit"])
def test_hooks_of_every_kind_are_given_the_attention_itself(name):
    model = reduced(name)
    attention = attention_of(model, anatomy_of(model).blocks[SITES[0]])
    kinds = []
    attention.register_forward_pre_hook(
        lambda module, args, given: kinds.append(module), with_kwargs=True
    )
    attention.register_forward_hook(lambda module, *rest: kinds.append(module))
    attention.register_full_backward_hook(lambda module, *rest: kinds.append(module))
    attention.register_full_backward_pre_hook(lambda module, *rest: kinds.append(module))
    sum(y.sum() for y in layers(model, pictures(model).requires_grad_())).backward()
    assert len(kinds) == 4
    assert all(module is attention for module in kinds)


@pytest.mark.unchecked
@pytest.mark.filterwarnings("ignore:`torch.jit.trace", "ignore::torch.jit.TracerWarning")
@pytest.mark.parametrize("name", ["vit", "siglip", "eva02"])
def test_a_hook_does_not_break_a_trace(name):
    model = reduced(name)
    x = pictures(model)
    attention = attention_of(model, anatomy_of(model).blocks[SITES[0]])
    attention.register_forward_hook(lambda module, args, output: None)
    torch.jit.trace(model, x, check_trace=False, strict=False)
