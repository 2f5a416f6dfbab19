"""Blocks that compute something else once they are opened are refused."""

import warnings

import pytest
import timm
import torch
from families import family, pictures
from timm.models.eva import EvaBlock
from timm.models.vision_transformer import Block
from torch import nn

import batvit


def small(name, **settings):
    return timm.create_model(name, depth=4, embed_dim=48, num_heads=3, **settings).eval()


def test_a_block_that_computes_something_else_is_refused_and_left_alone(monkeypatch):
    def another_forward(self, x, attn_mask=None, is_causal=False):
        return 2 * x

    model = small("vit_base_patch16_224")
    monkeypatch.setattr(Block, "forward", another_forward)
    with pytest.raises(
        TypeError, match=r"Block of timm 1.* does not compute what batvit was written for"
    ):
        batvit.patch(model)
    assert all(type(block) is Block for block in model.blocks)


def test_a_block_whose_attention_sees_other_tokens_is_refused(monkeypatch):
    def turned(self, x, attn_mask=None, is_causal=False):
        x = x + self.drop_path1(
            self.ls1(self.attn(self.norm1(x).flip(1), attn_mask=attn_mask, is_causal=is_causal))
        )
        return x + self.drop_path2(self.ls2(self.mlp(self.norm2(x))))

    model = family("vit")
    monkeypatch.setattr(Block, "forward", turned)
    with pytest.raises(TypeError, match="opened, it differs by"):
        batvit.patch(model)


def test_a_small_difference_behind_a_small_scale_is_refused(monkeypatch):
    def negated(self, x, attn_mask=None, is_causal=False):
        x = x + self.drop_path1(
            self.ls1(self.attn(self.norm1(x), attn_mask=attn_mask, is_causal=is_causal))
        )
        return x - self.drop_path2(self.ls2(self.mlp(self.norm2(x))))

    model = small("deit3_small_patch16_224")
    monkeypatch.setattr(Block, "forward", negated)
    with pytest.raises(TypeError, match="opened, it differs by"):
        batvit.patch(model)


def test_rotary_positions_that_are_left_out_are_refused(monkeypatch):
    def without(self, x, rope=None, attn_mask=None, is_causal=False):
        x = x + self.drop_path1(self.attn(self.norm1(x), rope=None, attn_mask=attn_mask))
        return x + self.drop_path2(self.mlp(self.norm2(x)))

    model = family("eva02")
    monkeypatch.setattr(EvaBlock, "forward", without)
    with pytest.raises(TypeError, match=r"EvaBlock of timm .* opened, it differs by"):
        batvit.patch(model)


def test_weights_that_are_not_finite_are_no_other_code():
    model = family("vit")
    model.blocks[0].mlp.fc1.weight.data[0, 0] = float("nan")
    x = pictures(model)
    with torch.no_grad():
        assert batvit.patch(model, keep_rate=0.5)(x).isnan().all()


class Whole(nn.Linear):
    """Weights kept as whole numbers, as quantisers for GPUs keep them."""

    def __init__(self, linear):
        super().__init__(linear.in_features, linear.out_features)
        self.step = float(linear.weight.detach().abs().max()) / 127
        self.weight = nn.Parameter(
            (linear.weight.detach() / self.step).round().to(torch.int8), requires_grad=False
        )
        self.bias = linear.bias

    def forward(self, x):
        return nn.functional.linear(x, self.weight.to(x) * self.step, self.bias)


def test_weights_that_are_whole_numbers_are_no_obstacle():
    model = family("vit").bfloat16()
    for block in model.blocks:
        for part, name in (
            (block.attn, "qkv"),
            (block.attn, "proj"),
            (block.mlp, "fc1"),
            (block.mlp, "fc2"),
        ):
            setattr(part, name, Whole(getattr(part, name)))
    with torch.no_grad():
        dense = model(pictures(model).bfloat16())
        assert torch.equal(batvit.patch(model, keep_rate=1.0)(pictures(model).bfloat16()), dense)


def test_quantised_layers_are_reduced_unproven():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = torch.ao.quantization.quantize_dynamic(family("vit"), {nn.Linear})
        batvit.patch(model, keep_rate=0.5)
        with torch.no_grad():
            assert model(pictures(model)).isfinite().all()


def test_a_model_on_the_meta_device_is_patched_unproven():
    with torch.device("meta"):
        model = small("deit_tiny_patch16_224")
    assert batvit.info(batvit.patch(model)).mac_ratio > 1


def test_the_default_device_does_not_matter():
    model = family("vit")
    with torch.device("meta"):
        batvit.patch(model, keep_rate=0.5)
    assert model(pictures(model)).device.type == "cpu"
