"""What a training loop needs of a reduction: setting its share, describing, saving, leaving out."""

import pytest
import torch
from families import family
from torch import nn

import batvit
from batvit.backbones.patch import during_training, schedule_of
from batvit.config import BATConfig
from batvit.training.reduction import reduction_of

CONFIG = BATConfig(keep_rate=0.5, blocks=(1, 3))


def tokens_out(model):
    return [counts.tokens_out for counts in schedule_of(model)]


def test_a_patched_model_carries_its_reduction():
    model = family("deit")
    assert reduction_of(model) is None
    batvit.patch(model, CONFIG)
    assert reduction_of(model) == during_training(CONFIG)


def test_each_site_loses_a_share_of_what_it_loses_in_the_end():
    model = family("deit")
    reduction = during_training(CONFIG)
    reduction.set_share(model, 1.0)
    assert batvit.config_of(model) == CONFIG
    assert tokens_out(model) == [18, 9]
    # 36 patches, of which 18 and 27 are lost in the end
    reduction.set_share(model, 1 / 3)
    assert tokens_out(model) == [30, 27]
    reduction.set_share(model, 0.0)
    assert batvit.config_of(model) is None


def test_pairs_that_are_counts_shrink_with_the_share():
    model = family("deit")
    config = BATConfig(tokens=(18,), blocks=(1,), centres=4, pairs=6)
    during_training(config).set_share(model, 0.5)
    found = batvit.config_of(model)
    assert (found.tokens, found.centres, found.pairs) == ((27,), 2, 2)
    # without clusters as many pairs as tokens are lost
    config = BATConfig(tokens=(20,), blocks=(1,), centres=0, pairs=16)
    during_training(config).set_share(model, 0.5)
    found = batvit.config_of(model)
    assert (found.tokens, found.centres, found.pairs) == ((28,), 0, 0.5)


def test_it_is_described_and_saved_in_plain_values(tmp_path):
    reduction = during_training(CONFIG)
    assert BATConfig.from_dict(reduction.describe()) == CONFIG
    assert BATConfig.from_dict(reduction.defaults()) == BATConfig()
    reduction.save_beside(tmp_path / "model.safetensors")
    assert BATConfig.beside(tmp_path / "model.safetensors") == CONFIG


def test_a_dense_copy_has_no_reduction_and_the_model_keeps_its_own():
    model = batvit.patch(family("deit"), CONFIG)
    dense = during_training(CONFIG).dense_copy(model)
    assert batvit.config_of(dense) is None
    assert batvit.config_of(model) == CONFIG
    for weight, other in zip(model.parameters(), dense.parameters(), strict=True):
        assert torch.equal(weight, other)


def test_of_what_only_holds_a_reduced_model_there_is_no_dense_copy():
    model = nn.Sequential(batvit.patch(family("deit"), CONFIG))
    with pytest.raises(ValueError, match="give the dense model to learn from as teacher"):
        during_training(CONFIG).dense_copy(model)
