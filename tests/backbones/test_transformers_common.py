"""What all layers of transformers have in common: kernels, masks, checkpointing."""

import pytest
import torch
import transformers
from families import family, of_transformers, pictures
from transformers.integrations.sdpa_attention import sdpa_attention_forward

import batvit
from batvit.reduction.site import reductions
from batvit.testing.run_contract import randomised


def vit(**settings):
    return randomised(
        of_transformers("ViTForImageClassification", "ViTConfig", 4, num_labels=5, **settings)
    )


def run(model, x, **arguments):
    with torch.no_grad():
        return model(pixel_values=x, **arguments)


@pytest.mark.parametrize(
    "name", ["hf_vit", "hf_dinov2", "hf_dinov3", "hf_clip_vision", "hf_siglip_vision"]
)
def test_eager_and_sdpa_agree(name):
    model = batvit.patch(family(name), keep_rate=0.5)
    x = pictures(model)
    results = []
    for implementation in ("sdpa", "eager"):
        model.set_attn_implementation(implementation)
        assert model.config._attn_implementation == implementation
        results.append(run(model, x)[0])
    torch.testing.assert_close(*results, rtol=1e-4, atol=1e-4)


def test_importance_is_the_class_row_of_the_eager_attention():
    model = batvit.patch(family("hf_dinov3"), keep_rate=0.5, blocks=(1,))
    model.set_attn_implementation("eager")
    site = reductions(model)[1]
    importance, captured = site.importance, []
    site.importance = lambda *args: captured.append(importance(*args)) or captured[-1]
    found = run(model, pictures(model), output_attentions=True).attentions
    assert len(found) == 5
    torch.testing.assert_close(captured[0], found[1][:, :, 0, site.prefix :].mean(1))


def test_an_attention_that_takes_no_sizes_is_refused():
    model = vit()
    model.config._attn_implementation_internal = "flash_attention_2"
    with pytest.raises(ValueError, match=r"flash_attention_2.*size_aware=False"):
        batvit.patch(model, keep_rate=0.5)
    assert batvit.config_of(model) is None


def test_an_attention_that_takes_no_sizes_may_not_be_set_afterwards():
    transformers.AttentionInterface.register("another", sdpa_attention_forward)
    model = batvit.patch(vit(), keep_rate=0.5)
    model.set_attn_implementation("another")
    with pytest.raises(
        ValueError, match=r"size_aware adds to the attention logits, which .*'another' cannot take"
    ):
        run(model, pictures(model))
    batvit.patch(model, keep_rate=0.5, size_aware=False)
    assert run(model, pictures(model)).logits.isfinite().all()


@pytest.mark.parametrize("implementation", ["sdpa", "eager"])
@pytest.mark.parametrize("size_aware", [False, True])
def test_padding_is_seen_by_nobody(implementation, size_aware):
    model = randomised(
        of_transformers("ViTModel", "ViTConfig", 4, attn_implementation=implementation)
    )
    x = pictures(model)
    mask = torch.ones(2, 37, dtype=torch.long)
    mask[0, 20:] = 0
    mask[1, 5:9] = 0
    expected = run(model, x, attention_mask=mask).last_hidden_state[:, 0]
    batvit.patch(model, keep_rate=1.0, size_aware=size_aware)
    found = run(model, x, attention_mask=mask).last_hidden_state[:, 0]
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
    batvit.patch(model, keep_rate=0.5, size_aware=size_aware)
    with batvit.trace(model) as trace:
        reduced = run(model, x, attention_mask=mask).last_hidden_state
    assert reduced.isfinite().all()
    assert trace.sites[-1].size.sum(1).tolist() == [19, 32]
    # what the padding shows changes nothing
    other = x.clone()
    other[0, :, 64:] += 3
    again = run(model, other, attention_mask=mask).last_hidden_state
    torch.testing.assert_close(again[0, 0], reduced[0, 0], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("kind", [torch.bool, torch.float32])
def test_a_mask_of_pairs_is_refused(kind):
    model = batvit.patch(randomised(of_transformers("ViTModel", "ViTConfig", 4)), keep_rate=1.0)
    pairs = torch.block_diag(torch.ones(20, 20), torch.ones(17, 17)).expand(2, 1, 37, 37)
    mask = pairs.bool() if kind == torch.bool else pairs - 1
    with pytest.raises(ValueError, match=r"got one of pairs of tokens, \(2, 1, 37, 37\)"):
        run(model, pictures(model), attention_mask=mask)


def test_another_checkpointing_function_works():
    model = batvit.patch(vit().train(), keep_rate=0.5)

    def checkpoint(function, *args):
        return torch.utils.checkpoint.checkpoint(function, *args, use_reentrant=False)

    model._set_gradient_checkpointing(True, checkpoint)
    model(pixel_values=pictures(model)).logits.sum().backward()
    assert all(parameter.grad is not None for parameter in model.vit.layers.parameters())
