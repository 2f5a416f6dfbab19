"""Weights that are written."""

import torch
from safetensors.torch import load_file
from torch import nn

from batvit.storage.weights import save_weights


def test_weights_that_share_memory_and_compiled_models_are_saved_with_their_own_keys(tmp_path):
    model = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
    model[1].weight = model[0].weight
    for wanted in (model, torch.compile(model)):
        saved = load_file(save_weights(wanted, tmp_path / "tied.safetensors"))
        assert set(saved) == set(model.state_dict())
