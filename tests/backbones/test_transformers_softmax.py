"""Layers whose attention computes its softmax itself: what they give, and what they refuse."""

import pytest
import torch
from families import family, of_transformers, pictures

import batvit
from batvit.testing.run_contract import randomised


@pytest.mark.parametrize("name", ["hf_flava", "hf_data2vec"])
def test_attentions_are_refused_with_the_remedy(name):
    model = family(name)
    x = pictures(model)
    assert len(model(x, output_attentions=True).attentions) == 5
    batvit.patch(model, keep_rate=0.5, blocks=(1,))
    with pytest.raises(ValueError, match=r"a reduced .*Layer gives no attentions.*batvit\.unpatch"):
        model(x, output_attentions=True)


@pytest.mark.parametrize("name", ["hf_flava", "hf_data2vec", "hf_mgp"])
def test_hidden_states_of_layers_that_give_tuples_are_whole(name):
    model = family(name)
    x = pictures(model)
    with torch.no_grad():
        dense = model(x, output_hidden_states=True).hidden_states
        batvit.patch(model, keep_rate=0.5, blocks=(1, 2))
        reduced = model(x, output_hidden_states=True).hidden_states
    assert [tuple(x.shape) for x in reduced] == [tuple(x.shape) for x in dense]
    assert torch.equal(reduced[1], dense[1])
    assert not torch.equal(reduced[-1], dense[-1])


@pytest.mark.parametrize("implementation", ["eager", "sdpa"])
def test_both_attentions_of_data2vec_agree(implementation):
    model = randomised(
        of_transformers(
            "Data2VecVisionModel", "Data2VecVisionConfig", 4, attn_implementation=implementation
        )
    )
    other = randomised(of_transformers("Data2VecVisionModel", "Data2VecVisionConfig", 4))
    x = pictures(model)
    with torch.no_grad():
        found = batvit.patch(model, keep_rate=0.5)(x).last_hidden_state
        expected = batvit.patch(other, keep_rate=0.5)(x).last_hidden_state
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
