"""From all tokens to what a reduction says."""

from itertools import pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from timm.models import VisionTransformer

import batvit
from batvit.backbones.patch import during_training, schedule_of
from batvit.training import TrainConfig
from batvit.training.keep_rate_warmup import KeepRateWarmup, share_of, shares


def vit():
    torch.manual_seed(0)
    return VisionTransformer(
        img_size=32, patch_size=4, embed_dim=16, depth=4, num_heads=2, num_classes=3
    ).eval()


def test_the_share_by_hand():
    config = TrainConfig(
        epochs=30, keep_warmup_start=10, keep_warmup_epochs=10, keep_warmup_steps=3
    )
    # a quarter, a half, three quarters: (1 - cos) / 2 passes them after 1/3, 1/2 and 2/3 of the way
    found = {
        epochs: share_of(config, epochs)
        for epochs in (0.0, 9.9, 10.0, 13.3, 13.4, 14.9, 15.1, 16.6, 16.7, 19.9, 20.0, 29.0)
    }
    assert list(found.values()) == [0, 0, 0, 0, 0.25, 0.25, 0.5, 0.5, 0.75, 0.75, 1, 1]


def test_without_warm_up_all_of_it_is_in_place_at_once():
    assert share_of(TrainConfig(), 0.0) == 1


@given(st.integers(1, 8), st.integers(0, 5), st.integers(1, 10))
def test_the_share_rises_in_as_many_steps_as_were_asked_for(steps, start, length):
    config = TrainConfig(
        epochs=20, keep_warmup_start=start, keep_warmup_epochs=length, keep_warmup_steps=steps
    )
    shares = [share_of(config, i / 50) for i in range(1000)]
    assert all(early <= late for early, late in pairwise(shares))
    assert shares[-1] == 1
    assert len({share for share in shares if 0 < share < 1}) <= steps


def counts(model):
    return [site.tokens_out for site in schedule_of(model)]


@pytest.mark.parametrize(
    "fields",
    [
        {"mode": "paper", "keep_rate": 0.5},
        {"keep_rate": 0.5},
        {"method": "topk", "keep_rate": 0.5},
        {"method": "tome", "keep_rate": 0.6},
        {"keep_rate": 0.7, "pairs": 8, "blocks": (1,), "align": 1},
        {"tokens": (50, 40), "pairs": 3, "centres": 9, "blocks": (1, 2)},
        {"tokens": (56, 48), "pairs": 8, "centres": 0, "blocks": (1, 2)},
    ],
)
def test_each_share_takes_as_much_of_the_tokens(fields):
    config = batvit.BATConfig.preset(fields.pop("mode", None) or "training-free", **fields)
    images = torch.randn(2, 3, 32, 32)
    dense, reduce = vit(), during_training(config)
    model = batvit.patch(vit(), config)
    whole, logits = counts(model), model(images)
    for share in (0.0, 0.25, 0.75, 1.0, 0.0):
        reduce.set_share(model, share)
        # of 64 patches
        assert counts(model) == (
            [] if share == 0 else [round(64 - share * (64 - left)) for left in whole]
        )
        found = model(images)
        if share in (0, 1):
            assert torch.equal(found, logits if share else dense(images))


def test_all_shares_are_those_that_come():
    config = TrainConfig(epochs=9, keep_warmup_start=2, keep_warmup_epochs=4, keep_warmup_steps=3)
    assert shares(config) == sorted({share_of(config, i / 100) for i in range(900)})
    assert shares(TrainConfig(epochs=9, keep_warmup_start=2)) == [0, 1]
    assert shares(TrainConfig()) == [1]


def test_models_are_changed_together_and_stay_in_their_mode():
    config = batvit.BATConfig.preset("paper", tokens=(16,), blocks=(1,))
    training, average = batvit.patch(vit(), config).train(), batvit.patch(vit(), config)
    warmup = KeepRateWarmup(during_training(config), [training, average])
    warmup.set_share(0.5)
    assert counts(training) == counts(average) == [40]
    warmup.set_share(1.0)
    assert counts(training) == counts(average) == [16]
    assert all(module.training for module in training.modules())
    assert not any(module.training for module in average.modules())


def test_a_model_without_a_reduction_is_left_alone():
    model = vit()
    KeepRateWarmup(None, [model]).set_share(0.5)
    assert counts(model) == []
