"""Patch and unpatch: what is refused, and that the model is then as it was."""

import copy

import pytest
import timm
import torch
from accelerate.hooks import ModelHook, add_hook_to_module
from families import family
from timm.models.vision_transformer import Block

import batvit
from batvit.backbones import patch as patching
from batvit.backbones.registry import anatomy_of
from batvit.config import BATConfig


def small(name, **settings):
    return timm.create_model(name, depth=4, embed_dim=48, num_heads=3, **settings).eval()


@pytest.mark.parametrize(
    ("name", "named"),
    [
        ("vit_pe_spatial_tiny_patch16_512", "EvaBlockPostNorm"),
        ("vit_relpos_small_patch16_224", "VisionTransformerRelPos"),
        ("swin_tiny_patch4_window7_224", "SwinTransformer"),
        ("vit_base_patch16_xp_224", "ParallelScalingBlock"),
        ("resnet10t", "ResNet"),
    ],
)
def test_what_is_not_supported_is_refused_by_name(name, named):
    try:
        model = small(name)
    except TypeError:
        model = timm.create_model(name)
    if named == "EvaBlockPostNorm":
        model = small("eva02_tiny_patch14_224", use_post_norm=True)
    if named == "ParallelScalingBlock":
        model = small(
            "vit_base_patch16_224", block_fn=timm.models.vision_transformer.ParallelScalingBlock
        )
    with pytest.raises(TypeError, match=named) as error:
        batvit.patch(model)
    assert "batvit.supported()" in str(error.value)


def test_other_attention_is_refused_by_name():
    with pytest.raises(TypeError, match=r"attention of block 0 is .*DiffAttention"):
        batvit.patch(small("vit_base_patch16_224", attn_layer="diff"))


def test_a_subclass_of_a_block_that_may_compute_something_else_is_refused():
    class MyBlock(Block):
        def forward(self, x):
            return super().forward(x)

    with pytest.raises(TypeError, match="MyBlock"):
        batvit.patch(small("vit_base_patch16_224", block_fn=MyBlock))


def test_a_bad_configuration_leaves_the_model_as_it_was():
    model = batvit.patch(small("deit_tiny_patch16_224"), keep_rate=0.5)
    before = batvit.config_of(model)
    for bad in ({"keep_rate": 2.0}, {"blocks": (9,)}, {"tokens": (300, 2, 1)}, {"mode": "fast"}):
        with pytest.raises(ValueError, match=r"2\.0|9|300|fast"):
            batvit.patch(model, **bad)
    with pytest.raises(ValueError, match="not both"):
        batvit.patch(model, batvit.BATConfig(), mode="paper")
    assert batvit.config_of(model) == before


@pytest.mark.parametrize("thing", ["a model", "what is no model"])
def test_an_unknown_plan_is_refused_before_anything_else(thing):
    model = small("deit_tiny_patch16_224") if thing == "a model" else torch.nn.Linear(2, 2)
    with pytest.raises(
        ValueError, match=r"method must be one of bat, topk, .*atc_single, got 'sinkhorn'"
    ):
        batvit.patch(model, method="sinkhorn")
    assert batvit.config_of(model) is None


@pytest.mark.unchecked
def test_a_dictionary_is_no_configuration():
    with pytest.raises(TypeError, match="from_dict"):
        batvit.patch(small("deit_tiny_patch16_224"), {"keep_rate": 0.5})


def test_fields_change_a_given_configuration():
    model = batvit.patch(
        small("deit_tiny_patch16_224"), batvit.BATConfig(keep_rate=0.5), similarity="keys"
    )
    assert batvit.config_of(model) == batvit.BATConfig(keep_rate=0.5, similarity="keys")


def test_a_failed_patch_leaves_the_one_before(monkeypatch):
    model = small("deit_tiny_patch16_224")
    prove = patching.prove

    def refuse_block_two(block, reduced, i, width):
        if i == 2:
            raise TypeError("no")
        prove(block, reduced, i, width)

    monkeypatch.setattr(patching, "prove", refuse_block_two)
    batvit.patch(model, keep_rate=0.5, blocks=(1,))
    with pytest.raises(TypeError, match="no"):
        batvit.patch(model, keep_rate=0.5, blocks=(2,))
    assert batvit.config_of(model).blocks == (1,)


@pytest.mark.unchecked
def test_a_model_compiled_in_place_is_refused():
    model = small("deit_tiny_patch16_224")
    model.compile(backend="eager")
    with pytest.raises(TypeError, match="compiled in place"):
        batvit.patch(model)


@pytest.mark.parametrize("name", ["vit", "hf_vit"])
def test_a_dispatched_model_is_refused(name):
    model = family(name)
    add_hook_to_module(anatomy_of(model).blocks[1], ModelHook())
    with pytest.raises(
        TypeError, match=r"forward of its own on block 1 .*call batvit\.patch first"
    ):
        batvit.patch(model)
    assert batvit.config_of(model) is None


def test_unpatching_a_dense_model_does_nothing():
    model = small("deit_tiny_patch16_224")
    assert batvit.unpatch(model) is model


def test_weights_load_either_way():
    model, other = small("deit_tiny_patch16_224"), batvit.patch(small("deit_tiny_patch16_224"))
    other.load_state_dict(copy.deepcopy(model.state_dict()))
    model.load_state_dict(other.state_dict())


def test_patching_and_counting_fire_no_hook_and_change_no_mode():
    model = small("deit_tiny_patch16_224").train()
    model.blocks[1].attn.proj_drop.eval()
    captured = []
    for module in model.modules():
        module.register_forward_hook(lambda *a: captured.append(a))
    modes = [module.training for module in model.modules()]
    batvit.info(batvit.patch(model))
    assert captured == []
    assert [m.training for m in batvit.unpatch(model).modules()] == modes


def test_more_than_a_matching_can_merge_is_refused_before_the_model_is_touched():
    model = timm.create_model("vit_tiny_patch16_224", img_size=64, depth=4)
    with pytest.raises(
        ValueError,
        match="block 1: tome cannot leave 4 of 16 tokens in one step, at least 50% must stay",
    ):
        batvit.patch(model, BATConfig(method="tome", blocks=(1,), tokens=(4,)))
    assert batvit.config_of(model) is None
