"""Layers whose attention holds another; tokens behind the patches keep their place."""

import pytest
import torch
from families import YOLOS, family, of_transformers, pictures

import batvit
from batvit.backbones.registry import anatomy_of
from batvit.reduction.site import reductions
from batvit.testing.run_contract import randomised


def run(model, x, **arguments):
    with torch.no_grad():
        return model(pixel_values=x, **arguments)


def test_detection_tokens_are_never_merged():
    model = batvit.patch(family("hf_yolos"), keep_rate=0.3, blocks=(1, 2))
    anatomy = anatomy_of(model)
    assert (anatomy.prefix, anatomy.suffix, anatomy.patches) == (6, 5, 36)
    with batvit.trace(model) as trace:
        found = run(model, pictures(model))
    assert found.logits.shape[1] == found.pred_boxes.shape[1] == 5
    assert found.last_hidden_state.shape == (2, 42, 48)
    for site in trace.sites:
        assert site.origin.tokens == 36


@pytest.mark.parametrize("method", ["bat", "topk"])
def test_tokens_behind_the_patches_stay_behind_them(method):
    model = randomised(of_transformers("YolosModel", "YolosConfig", 4, **YOLOS))
    x = pictures(model)
    dense = run(model, x, output_hidden_states=True)
    batvit.patch(model, method=method, keep_rate=0.6, blocks=(1,))
    reduced = run(model, x, output_hidden_states=True)
    # before the site nothing has changed
    for one, other in zip(reduced.hidden_states[:2], dense.hidden_states[:2], strict=True):
        assert torch.equal(one, other)
    # behind it the class and detection tokens are near what they were, in the same places
    for one, other in zip(reduced.hidden_states[2:], dense.hidden_states[2:], strict=True):
        for place in (0, -5, -4, -3, -2, -1):
            near = torch.nn.functional.cosine_similarity(one[:, place], other[:, place])
            assert (near > 0.9).all()
    groups = 36 if method == "bat" else batvit.info(model).blocks[-1].tokens_out
    assert reduced.last_hidden_state.shape[1] == 6 + groups


def test_importance_is_the_class_row_of_the_attention_inside():
    model = batvit.patch(family("hf_yolos"), keep_rate=0.5, blocks=(1,))
    model.set_attn_implementation("eager")
    site = reductions(model)[1]
    importance, captured = site.importance, []
    site.importance = lambda *args: captured.append(importance(*args)) or captured[-1]
    found = run(model, pictures(model), output_attentions=True).attentions
    # within a reduced layer the detection tokens stand before the patches
    torch.testing.assert_close(captured[0], found[1][:, :, 0, 6:].mean(1))


def test_hooks_on_both_attentions_hear_them():
    model = batvit.patch(family("hf_vitpose"), keep_rate=0.5, blocks=(1,))
    attention = anatomy_of(model).blocks[1].attention
    heard = []
    for part in (attention, attention.attention):
        part.register_forward_hook(lambda module, *_: heard.append(module))
    run(model, pictures(model))
    assert heard == [attention.attention, attention]


def test_diversity_of_dense_tokens_leaves_out_those_behind_the_patches():
    model = family("hf_yolos")
    x = pictures(model)
    values = batvit.diversity_by_block(model, x)
    hidden = run(model, x, output_hidden_states=True).hidden_states
    expected = float(batvit.diversity(hidden[1][:, 1:-5]).mean())
    assert values[0] == pytest.approx(expected, rel=1e-4)
