"""The contract is run by name, on a model with random weights; tests/examples breaks it."""

import pytest
import torch
from families import pictures, small
from torch import nn

import batvit.testing
from batvit.testing.run_contract import check_backbone, randomised


def test_the_face_of_the_folder_has_it():
    assert batvit.testing.check_backbone is check_backbone
    assert batvit.testing.randomised is randomised


def test_a_check_that_does_not_exist_is_refused():
    with pytest.raises(ValueError, match="keeping_everything"):
        check_backbone(lambda: small("vit"), pictures(small("vit")), only="speed")


def test_weights_are_random_and_the_same_each_time():
    first = randomised(nn.Sequential(nn.Linear(50, 50), nn.LayerNorm(500)))
    again = randomised(nn.Sequential(nn.Linear(50, 50), nn.LayerNorm(500)))
    for one, other in zip(first.parameters(), again.parameters(), strict=True):
        assert torch.equal(one, other)
    assert first[0].weight.std().item() == pytest.approx(0.2, rel=0.1)
    # around one, as norms are
    assert first[1].weight.mean().item() == pytest.approx(1, abs=0.1)
    assert first[1].bias.mean().item() == pytest.approx(0, abs=0.1)
    assert not first.training
