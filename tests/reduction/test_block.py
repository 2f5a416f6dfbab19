"""A reduced block: what it hands its attention, and what it refuses."""

import pytest
import torch
from families import family, pictures
from timm.models.vision_transformer import Block

import batvit
from batvit.backbones.registry import anatomy_of
from batvit.reduction.tokens import Tokens


def test_dense_attention_stays_unmasked_until_tokens_are_merged(monkeypatch):
    masks = []
    fused = torch.nn.functional.scaled_dot_product_attention

    def listening(q, k, v, attn_mask=None, **kwargs):
        masks.append(attn_mask is not None)
        return fused(q, k, v, attn_mask=attn_mask, **kwargs)

    monkeypatch.setattr(torch.nn.functional, "scaled_dot_product_attention", listening)
    model = family("vit")
    for settings, expected in (
        ({"size_aware": True}, [False, False, True, True, True]),
        ({"size_aware": False}, [False] * 5),
    ):
        batvit.patch(model, keep_rate=0.5, blocks=(1, 3), **settings)
        masks.clear()
        with torch.no_grad():
            model(pictures(model))
        assert masks == expected


def test_average_pooling_weights_a_group_by_its_size():
    model = family("mae")
    batvit.patch(model, tokens=(12,), blocks=(2,), size_aware=False)
    seen = []
    model.blocks[3].register_forward_hook(lambda m, a, out: seen.append(out))
    with torch.no_grad():
        found = model.forward_head(model.forward_features(pictures(model)), pre_logits=True)
        tokens: Tokens = seen[0]
        x = Block.forward(model.blocks[4], tokens.x)[:, 1:]
        mean = (x * tokens.sizes.unsqueeze(-1)).sum(1) / tokens.sizes.sum(1, keepdim=True)
        torch.testing.assert_close(found, model.fc_norm(mean), rtol=1e-4, atol=1e-4)
    assert tokens.sizes.max() > 1


def test_pooling_of_what_was_dropped_is_over_what_remains():
    model = batvit.patch(family("gap"), method="topk", tokens=(12,), blocks=(2,))
    with torch.no_grad():
        assert model.forward_features(pictures(model)).shape[1] == 12


def test_an_attention_mask_is_refused():
    model = batvit.patch(family("deit"))
    with pytest.raises(ValueError, match="attn_mask"):
        model(pictures(model), attn_mask=torch.zeros(1, 1, 1, 37))


@pytest.mark.parametrize("name", ["vit", "eva02", "hf_vit", "torchvision", "open_clip_tower"])
def test_a_reduced_block_knows_the_class_that_it_was(name):
    model = family(name)
    kinds = [type(block) for block in anatomy_of(model).blocks]
    blocks = anatomy_of(batvit.patch(model, keep_rate=0.5, blocks=(0,))).blocks
    assert [block.own_class() for block in blocks] == kinds


@pytest.mark.parametrize("kind", ["register_full_backward_hook", "register_full_backward_pre_hook"])
@pytest.mark.parametrize("name", ["vit", "hf_vit", "torchvision"])
def test_a_backward_hook_on_a_reduced_block_is_refused_and_inside_it_is_called(name, kind):
    model = batvit.patch(family(name), keep_rate=0.5, blocks=(1,))
    block = anatomy_of(model).blocks[1]
    called = []
    inside = getattr(block, block.parts.mlp)
    hook = getattr(inside, kind)(lambda module, *gradients: called.append(module))
    logits_of(model).sum().backward()
    assert called == [inside]
    hook.remove()
    getattr(block, kind)(lambda module, *gradients: called.append(module))
    with pytest.raises(ValueError, match="a backward hook on a reduced block would never be"):
        logits_of(model)


def logits_of(model):
    found = model(pictures(model))
    return getattr(found, "logits", found)
