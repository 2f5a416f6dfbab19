"""Multiply-accumulates: against arithmetic by hand."""

import copy

import pytest
import torch
from timm.layers.attention import Attention
from timm.models.vision_transformer import VisionTransformer
from torch import nn

import batvit
from batvit.measure.macs import count_macs, count_parameters
from batvit.module_copy import on_meta


def vit(**settings):
    return VisionTransformer(
        **(
            {
                "img_size": 64,
                "patch_size": 16,
                "embed_dim": 24,
                "depth": 4,
                "num_heads": 3,
                "num_classes": 5,
            }
            | settings
        )
    )


@pytest.mark.parametrize(
    ("module", "size", "expected"),
    [
        (nn.Linear(7, 5), (7,), 7 * 5),
        (nn.Linear(7, 5, bias=False), (3, 7), 3 * 7 * 5),
        (nn.Conv2d(3, 8, 3, padding=1), (3, 10, 12), 10 * 12 * 8 * 3 * 9),
        (nn.Conv2d(4, 8, 3, stride=2, groups=2), (4, 9, 9), 4 * 4 * 8 * 2 * 9),
        (nn.Sequential(nn.LayerNorm(6), nn.ReLU(), nn.Softmax(-1)), (6,), 0),
        # queries, keys and values, their two products, and the projection
        (Attention(12, num_heads=3), (5, 12), 5 * 12 * 36 + 2 * 5 * 5 * 12 + 5 * 12 * 12),
    ],
    ids=[
        "linear",
        "linear of a sequence",
        "convolution",
        "groups and stride",
        "nothing",
        "attention",
    ],
)
def test_macs_are_those_of_arithmetic(module, size, expected):
    assert count_macs(module, size)[""] == expected


def test_fused_and_plain_attention_cost_the_same():
    fused, plain = Attention(12, num_heads=3), Attention(12, num_heads=3)
    fused.fused_attn, plain.fused_attn = True, False
    assert count_macs(fused, (5, 12)) == count_macs(plain, (5, 12))


def test_a_vit_by_hand_and_by_name():
    macs = count_macs(vit(), (3, 64, 64))
    tokens, width = 17, 24
    attention = tokens * width * 3 * width + 2 * tokens * tokens * width + tokens * width * width
    assert macs["blocks.0.attn"] == attention
    assert macs["blocks.0"] == attention + 8 * tokens * width * width
    assert macs["patch_embed"] == 16 * width * 3 * 16 * 16
    assert macs["head"] == width * 5
    assert macs[""] == 4 * macs["blocks.0"] + macs["patch_embed"] + macs["head"]
    assert "blocks.0.norm1" not in macs


def test_a_reduction_is_counted_by_name():
    model = batvit.patch(vit(), tokens=(6,), blocks=(1,))
    macs = count_macs(model, (3, 64, 64))
    # clustering multiplies matrices: it is not free
    assert 0 < macs["blocks.1.reduce"] < macs["blocks.1"]
    assert macs["blocks.2"] == 7 * 24 * 96 + 2 * 7 * 7 * 24 + 8 * 7 * 24 * 24


def test_macs_do_not_depend_on_precision_or_device():
    model = vit()
    expected = count_macs(model, (3, 64, 64))
    assert count_macs(copy.deepcopy(model).bfloat16(), (3, 64, 64)) == expected
    assert count_macs(copy.deepcopy(model).to("meta"), (3, 64, 64)) == expected


def test_the_model_is_left_as_it_was():
    model = batvit.patch(vit(drop_rate=0.5), tokens=(6,), blocks=(1,)).train()
    heard = []
    model.blocks[0].register_forward_hook(lambda *a: heard.append(a))
    weights = {key: value.clone() for key, value in model.state_dict().items()}
    parameters = list(model.parameters())
    hooks = [
        len(module._forward_hooks) + len(module._forward_pre_hooks) for module in model.modules()
    ]
    modes = [module.training for module in model.modules()]
    count_macs(model, (3, 64, 64))
    assert all(torch.equal(value, weights[key]) for key, value in model.state_dict().items())
    assert all(a is b for a, b in zip(model.parameters(), parameters, strict=True))
    assert all(parameter.requires_grad and not parameter.is_meta for parameter in parameters)
    assert [module.training for module in model.modules()] == modes
    assert [
        len(module._forward_hooks) + len(module._forward_pre_hooks) for module in model.modules()
    ] == hooks


def test_a_copy_on_meta_has_shapes_and_no_weights():
    model = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3))
    shadow = on_meta(model)
    assert [(k, v.shape, v.is_meta) for k, v in shadow.state_dict().items()] == [
        (k, v.shape, True) for k, v in model.state_dict().items()
    ]
    assert not any(value.is_meta for value in model.state_dict().values())


def test_shared_weights_stay_shared_and_count_once():
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
    model[1].weight = model[0].weight
    assert count_parameters(model) == 16 + 4 + 4
    shadow = on_meta(model)
    assert shadow[0].weight is shadow[1].weight


def test_parameters_are_all_counted_frozen_ones_too():
    model = nn.Linear(3, 5)
    model.weight.requires_grad_(False)
    assert count_parameters(model) == 20
