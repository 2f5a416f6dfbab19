"""What is particular to timm's models, and what is refused."""

import copy
import itertools
import subprocess
import sys
import warnings
from dataclasses import replace
from math import inf, log

import pytest
import timm
import torch
from accelerate.hooks import ModelHook, add_hook_to_module
from families import family, pictures
from timm.models.eva import EvaBlock
from timm.models.vision_transformer import Block
from torch import nn

import batvit
from batvit.backbones import patch as patching
from batvit.backbones import registry
from batvit.backbones.registry import anatomy_of
from batvit.core import Assignment, assign, merge
from batvit.reduction.site import QueriesKeys, Reduce, reductions
from batvit.reduction.tokens import Tokens


def small(name, **settings):
    return timm.create_model(name, depth=4, embed_dim=48, num_heads=3, **settings).eval()


def test_supported_names_models_that_can_be_patched():
    found = batvit.supported()["timm"]
    assert set(found) >= {
        "DeiT",
        "DINOv2",
        "SigLIP image tower",
        "CLIP image tower",
        "MAE",
        "EVA, EVA-02",
        "DINOv3",
        "LV-ViT",
    }
    for example in found.values():
        batvit.patch(small(example))


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


def test_a_library_of_an_unknown_version_is_named(monkeypatch):
    monkeypatch.setattr(registry, "LIBRARIES", {"timm": ("timm_vit", "timm_of_tomorrow")})
    assert batvit.config_of(batvit.patch(small("deit_tiny_patch16_224"))) is not None
    with pytest.raises(
        TypeError, match=r"timm 1\..* is of a version that batvit does not know: .*timm_of_tomorrow"
    ):
        batvit.patch(timm.create_model("resnet10t"))


def test_adapters_are_imported_only_when_their_library_is():
    code = (
        "import sys, timm, batvit\n"
        "batvit.patch(timm.create_model('test_vit'))\n"
        "print('transformers' in sys.modules, 'open_clip' in sys.modules, 'batvit.backbones.timm_vit' in sys.modules)"
    )
    found = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], check=True, capture_output=True, text=True
    )
    assert found.stdout.split() == ["False", "False", "True"]


def test_other_attention_is_refused_by_name():
    with pytest.raises(TypeError, match=r"attention of block 0 is .*DiffAttention"):
        batvit.patch(small("vit_base_patch16_224", attn_layer="diff"))


def test_a_subclass_of_a_block_is_refused():
    class MyBlock(Block):
        pass

    with pytest.raises(TypeError, match="MyBlock"):
        batvit.patch(small("vit_base_patch16_224", block_fn=MyBlock))


@pytest.mark.unchecked
@pytest.mark.parametrize("thing", [None, "deit", lambda x: x])
def test_what_is_no_module_is_refused(thing):
    with pytest.raises(TypeError, match=r"torch\.nn\.Module"):
        batvit.patch(thing)


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


def test_a_bad_configuration_leaves_the_model_as_it_was():
    model = batvit.patch(small("deit_tiny_patch16_224"), keep_rate=0.5)
    before = batvit.config_of(model)
    for bad in ({"keep_rate": 2.0}, {"blocks": (9,)}, {"tokens": (300, 2, 1)}, {"mode": "fast"}):
        with pytest.raises(ValueError, match=r"2\.0|9|300|fast"):
            batvit.patch(model, **bad)
    with pytest.raises(ValueError, match="not both"):
        batvit.patch(model, batvit.BATConfig(), mode="paper")
    assert batvit.config_of(model) == before


@pytest.mark.unchecked
def test_a_dictionary_is_no_configuration():
    with pytest.raises(TypeError, match="from_dict"):
        batvit.patch(small("deit_tiny_patch16_224"), {"keep_rate": 0.5})


def test_fields_change_a_given_configuration():
    model = batvit.patch(
        small("deit_tiny_patch16_224"), batvit.BATConfig(keep_rate=0.5), similarity="keys"
    )
    assert batvit.config_of(model) == batvit.BATConfig(keep_rate=0.5, similarity="keys")


def test_a_compiled_model_is_refused_with_the_remedy():
    with pytest.raises(TypeError, match=r"then torch\.compile"):
        batvit.patch(torch.compile(small("deit_tiny_patch16_224")))


def test_an_attention_mask_is_refused():
    model = batvit.patch(small("deit_tiny_patch16_224"))
    with pytest.raises(ValueError, match="attn_mask"):
        model(pictures(model), attn_mask=torch.zeros(1, 1, 1, 197))


def test_unpatching_a_dense_model_does_nothing():
    model = small("deit_tiny_patch16_224")
    assert batvit.unpatch(model) is model


@pytest.mark.parametrize("size", [(64, 64), (128, 96), (96, 176)])
def test_other_image_sizes(size):
    model = batvit.patch(family("dynamic"), keep_rate=0.5)
    with batvit.trace(model) as trace, torch.no_grad():
        model(pictures(model, size=size))
    assert trace.grid == (size[0] // 16, size[1] // 16)
    assert trace.sites[0].origin.tokens == trace.grid[0] * trace.grid[1]
    model.set_input_size(size)
    assert anatomy_of(model).grid == trace.grid


@pytest.mark.parametrize("size", [224, 256, 384])
def test_paper_counts_scale_with_the_image(size):
    model = batvit.patch(
        small("deit_tiny_patch16_224", img_size=size), mode="paper", keep_rate=0.7, blocks=(1, 2, 3)
    )
    patches = (size // 16) ** 2
    found = [block.tokens_out for block in batvit.info(model).blocks][1:]
    assert all(
        abs(tokens - patches * share / 196) < 3
        for tokens, share in zip(found, (138, 97, 68), strict=True)
    )


def test_average_pooling_weights_a_group_by_its_size():
    model = family("mae")
    batvit.patch(model, tokens=(12,), blocks=(2,), size_aware=False)
    seen = []
    model.blocks[3].register_forward_hook(lambda m, a, out: seen.append(out))
    with torch.no_grad():
        found = model.forward_head(model.forward_features(pictures(model)), pre_logits=True)
        tokens: Tokens = seen[0]
        x = Block.forward(model.blocks[4], tokens.x)[:, 1:]
        mean = (x * tokens.size.unsqueeze(-1)).sum(1) / tokens.size.sum(1, keepdim=True)
        torch.testing.assert_close(found, model.fc_norm(mean), rtol=1e-4, atol=1e-4)
    assert tokens.size.max() > 1


def test_pooling_of_what_was_dropped_is_over_what_remains():
    model = batvit.patch(family("gap"), method="topk", tokens=(12,), blocks=(2,))
    with torch.no_grad():
        assert model.forward_features(pictures(model)).shape[1] == 12


def test_a_size_aware_token_counts_as_its_copies():
    # two equal tokens merged into one of size 2 get the attention that the two got
    model = family("vit")
    block = model.blocks[2]
    x = torch.randn(1, 5, 48, generator=torch.Generator().manual_seed(0))
    doubled = torch.cat([x, x[:, -1:]], dim=1)
    sizes = torch.tensor([[1.0, 1.0, 1.0, 2.0]])
    tokens = Tokens(x, sizes, Assignment.identity(1, 4)).with_size_bias(size_aware=True)
    with torch.no_grad():
        torch.testing.assert_close(
            block(x, attn_mask=tokens.bias), block(doubled)[:, :5], rtol=1e-5, atol=1e-5
        )


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
def test_the_bias_is_the_logarithm_of_the_sizes(dtype):
    # two prefix tokens, three groups
    tokens = Tokens(
        torch.zeros(1, 5, 2, dtype=dtype),
        torch.tensor([[1.0, 2.0, 5.0]]),
        Assignment.identity(1, 3),
    )
    weighed = tokens.with_size_bias(size_aware=True)
    assert tokens.bias is None
    assert torch.equal(
        weighed.bias, torch.tensor([0, 0, 0, log(2), log(5)]).view(1, 1, 1, 5).to(dtype)
    )
    assert weighed.with_size_bias(size_aware=False).bias is None
    half = torch.tensor([0, 0, 0, log(2) / 2, log(5) / 2]).view(1, 1, 1, 5)
    torch.testing.assert_close(
        tokens.with_size_bias(size_aware=True, size_power=0.5).bias, half.to(dtype)
    )


def test_at_a_power_of_half_four_patches_count_as_two():
    # a token of size 4 gets the attention that two copies of it get
    model = batvit.patch(family("vit"), blocks=(2,), size_power=0.5)
    tokens = Tokens(
        torch.randn(1, 5, 48), torch.tensor([[1.0, 1.0, 1.0, 4.0]]), Assignment.identity(1, 4)
    )
    weighed = tokens.with_size_bias(
        model.blocks[2].reduce.config.size_aware, model.blocks[2].reduce.config.size_power
    )
    with torch.no_grad():
        found = Block.forward(model.blocks[2], weighed.x, attn_mask=weighed.bias)
        expected = Block.forward(model.blocks[2], torch.cat([tokens.x, tokens.x[:, -1:]], dim=1))[
            :, :5
        ]
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


@torch.no_grad()
def test_the_power_reaches_the_blocks_after_a_site():
    model = family("vit")
    seen = []
    batvit.patch(model, tokens=(12,), blocks=(2,), size_power=0.5)
    model.blocks[2].register_forward_hook(lambda m, a, out: seen.append(out))
    model(pictures(model))
    torch.testing.assert_close(seen[0].bias[:, 0, 0, 1:], seen[0].size.log() / 2)


def test_padding_is_attended_to_by_none_whether_sizes_count_or_not():
    tokens = Tokens.start(torch.zeros(1, 3, 2), 1, torch.tensor([[True, False]]))
    assert tokens.bias.flatten().tolist() == [0, 0, -inf]
    merged = replace(tokens, size=torch.tensor([[2.0, 0.0]]))
    assert merged.with_size_bias(size_aware=False).bias.flatten().tolist() == [0, 0, -inf]
    torch.testing.assert_close(
        merged.with_size_bias(size_aware=True).bias.flatten(), torch.tensor([0, log(2), -inf])
    )


@pytest.mark.parametrize("size_aware", [False, True])
@pytest.mark.parametrize("method", ["bat", "topk"])
def test_a_site_makes_the_bias_of_what_it_leaves(method, size_aware):
    config = batvit.BATConfig(tokens=(12,), blocks=(0,), method=method, size_aware=size_aware)
    site = Reduce(config, 0, depth=1, prefix=1, class_token=True)
    x, queries, keys = torch.randn(3, 2, 1, 50, 48, generator=torch.Generator().manual_seed(0))
    before = Tokens.start(x[:, 0], 1)
    after = site(before, QueriesKeys(queries, keys, 0.1))
    assert before.bias is None
    assert after.origin.drops == (method == "topk")
    if not size_aware:
        assert after.bias is None
        return
    assert after.bias.shape == (2, 1, 1, 13)
    assert torch.equal(after.bias[:, 0, 0, 0], torch.zeros(2))
    torch.testing.assert_close(after.bias[:, 0, 0, 1:].exp(), after.size)
    assert (after.size.max() > 1) == (method == "bat")


@pytest.mark.parametrize("weight", ["importance", "size", "importance_size"])
@pytest.mark.parametrize("similarity", ["tokens", "keys"])
@pytest.mark.parametrize("keep_norm", [False, True])
def test_a_site_groups_by_similarity_and_merges_by_weight(weight, similarity, keep_norm):
    config = batvit.BATConfig(
        tokens=(12,), blocks=(0,), weight=weight, similarity=similarity, keep_norm=keep_norm
    )
    site = Reduce(config, 0, depth=1, prefix=1, class_token=True)
    x, queries, keys = torch.randn(3, 2, 3, 50, 48, generator=torch.Generator().manual_seed(0))
    size = (torch.arange(49.0) % 5 + 1).expand(2, -1)
    before, captured = replace(Tokens.start(x[:, 0], 1), size=size), QueriesKeys(queries, keys, 0.1)
    importance, counts, image = site.importance(before, captured), site.counts(49), x[:, 0, 1:]
    features = {"tokens": image, "keys": keys.mean(dim=1)[:, 1:]}
    groups = {
        name: assign(
            each, importance, attentive=counts.attentive, pairs=counts.pairs, centres=counts.centres
        )
        for name, each in features.items()
    }
    weights = {"importance": importance, "size": size, "importance_size": importance * size}
    merged = {
        (one, other, kept): merge(image, groups[one], weights[other], keep_norm=kept)
        for one, other, kept in itertools.product(groups, weights, (False, True))
    }
    found = site(before, captured)
    assert torch.equal(found.origin.index, groups[similarity].index)
    near = [
        key
        for key, each in merged.items()
        if torch.allclose(found.x[:, 1:], each, rtol=1e-5, atol=1e-5)
    ]
    assert near == [(similarity, weight, keep_norm)]


def test_dense_attention_stays_unmasked_until_tokens_are_merged(monkeypatch):
    masks = []
    fused = torch.nn.functional.scaled_dot_product_attention

    def listening(q, k, v, attn_mask=None, **kwargs):
        masks.append(attn_mask is not None)
        return fused(q, k, v, attn_mask=attn_mask, **kwargs)

    monkeypatch.setattr(torch.nn.functional, "scaled_dot_product_attention", listening)
    model = family("vit")
    for settings, expected in (
        ({"size_aware": True}, [False, False, True, True, True]),
        ({"size_aware": False}, [False] * 5),
    ):
        batvit.patch(model, keep_rate=0.5, blocks=(1, 3), **settings)
        masks.clear()
        with torch.no_grad():
            model(pictures(model))
        assert masks == expected


def importance_and_attention(name):
    """What a site takes for importance, and the attention (B, H, queries, keys) that the module itself computed."""
    model = family(name)
    attention = model.blocks[1].attn
    attention.fused_attn = False
    batvit.patch(model, keep_rate=0.5, blocks=(1,))
    seen, captured = [], []
    attention.attn_drop.register_forward_hook(lambda m, a, out: seen.append(out))
    site = reductions(model)[1]
    importance = site.importance
    site.importance = lambda *a: captured.append(importance(*a)) or captured[-1]
    with torch.no_grad():
        model(pictures(model))
    return captured[0], seen[0]


def test_importance_is_the_class_row_of_the_attention():
    importance, attention = importance_and_attention("vit")
    torch.testing.assert_close(importance, attention[:, :, 0, 1:].mean(1))


def test_without_a_class_token_importance_is_the_attention_received():
    importance, attention = importance_and_attention("siglip")
    torch.testing.assert_close(importance, attention.mean((1, 2)))


@pytest.mark.parametrize("method", ["bat", "topk"])
def test_autocast_shortens_neither_distances_nor_sums(method):
    config = batvit.BATConfig(tokens=(40,), blocks=(0,), weight="size", method=method)
    site = Reduce(config, 0, depth=1, prefix=1, class_token=True)
    generator = torch.Generator().manual_seed(0)
    # far from the origin, where distances in bf16 would cancel to noise
    x = 30 + torch.randn(2, 197, 48, generator=generator)
    queries, keys = torch.randn(2, 2, 3, 197, 16, generator=generator).bfloat16().float()
    site.importance = lambda tokens, captured: keys[:, :, 1:, 0].mean(1).abs()
    expected = site(Tokens.start(x, 1), QueriesKeys(queries, keys, 0.25))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = site(Tokens.start(x, 1), QueriesKeys(queries, keys, 0.25))
    assert torch.equal(found.origin.index, expected.origin.index)
    assert torch.equal(found.x, expected.x)


def test_importance_learns_through_the_weights():
    model = batvit.patch(family("deit"), mode="paper", keep_rate=0.5, blocks=(1,))
    captured = []
    site = reductions(model)[1]
    importance = site.importance
    site.importance = lambda *a: captured.append(importance(*a)) or captured[-1]
    model(pictures(model)).square().mean().backward(inputs=[*model.parameters()])
    assert captured[0].requires_grad


def test_training_mode_runs_with_dropped_paths_and_patches():
    model = family("deit")
    model = timm.create_model(
        "deit_tiny_patch16_224",
        depth=4,
        embed_dim=48,
        num_heads=3,
        drop_path_rate=0.2,
        patch_drop_rate=0.25,
    )
    batvit.patch(model, keep_rate=0.5)
    model.train()(pictures(model)).sum().backward()
    assert model.blocks[0].attn.qkv.weight.grad.abs().sum() > 0


def test_a_model_on_the_meta_device_is_patched_unproven():
    with torch.device("meta"):
        model = small("deit_tiny_patch16_224")
    assert batvit.info(batvit.patch(model)).mac_ratio > 1


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


def test_an_image_size_that_the_model_does_not_take_is_refused():
    with pytest.raises(ValueError, match="takes images of 224 x 224, got 384 x 384"):
        batvit.info(small("deit_tiny_patch16_224"), image_size=(384, 384))


def test_one_field_of_a_configuration_takes_the_place_of_its_rival():
    config = batvit.BATConfig.preset("paper", keep_rate=0.5)
    assert config.with_fields(keep_rate=0.6).keep_rate == 0.6
    assert config.with_fields(tokens=(9,)).keep_rate is None
    assert config.with_fields(tokens=(9, 8)).with_fields(keep_rate=0.6).tokens is None


@pytest.mark.unchecked
def test_a_model_compiled_in_place_is_refused():
    model = small("deit_tiny_patch16_224")
    model.compile(backend="eager")
    with pytest.raises(TypeError, match="compiled in place"):
        batvit.patch(model)


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


def test_weights_that_are_not_finite_are_no_other_code():
    model = family("vit")
    model.blocks[0].mlp.fc1.weight.data[0, 0] = float("nan")
    x = pictures(model)
    with torch.no_grad():
        assert batvit.patch(model, keep_rate=0.5)(x).isnan().all()


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


@pytest.mark.parametrize("name", ["vit", "hf_vit"])
def test_a_dispatched_model_is_refused(name):
    model = family(name)
    add_hook_to_module(anatomy_of(model).blocks[1], ModelHook())
    with pytest.raises(
        TypeError, match=r"forward of its own on block 1 .*call batvit\.patch first"
    ):
        batvit.patch(model)
    assert batvit.config_of(model) is None


def test_a_wrapped_model_is_named():
    with pytest.raises(
        TypeError, match="DataParallel holds a model that can be reduced: patch its module instead"
    ):
        batvit.patch(nn.DataParallel(family("vit")))
    with pytest.raises(TypeError, match=r"patch its 0\.inner instead"):
        batvit.patch(nn.Sequential(nn.ModuleDict({"inner": family("vit")})))


def test_another_pooling_is_followed():
    model = family("vit")
    other = copy.deepcopy(model)
    torch.manual_seed(0)
    batvit.patch(model, keep_rate=0.5).reset_classifier(0, "avg")
    other.reset_classifier(0, "avg")
    batvit.patch(other, keep_rate=0.5)
    with torch.no_grad():
        assert torch.equal(model(pictures(model)), other(pictures(model)))
    model.reset_classifier(0, "token")
    assert model.blocks[-1].output_form == "tensor"
    batvit.unpatch(model).reset_classifier(0, "avg")


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


def test_the_default_device_does_not_matter():
    model = family("vit")
    with torch.device("meta"):
        batvit.patch(model, keep_rate=0.5)
    assert model(pictures(model)).device.type == "cpu"


@pytest.mark.parametrize("name", ["vit_tiny_patch16_224", "lvvit_small_patch16_224"])
def test_pictures_may_have_other_channels_than_three(name):
    model = batvit.patch(timm.create_model(name, img_size=64, depth=4, in_chans=1), keep_rate=0.5)
    found = batvit.info(model)
    assert found.macs < found.dense_macs
    with batvit.trace(model) as trace:
        model.eval()(torch.randn(2, 1, 64, 64))
    assert "clusters" in str(trace)


def test_quantised_layers_are_reduced_unproven():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = torch.ao.quantization.quantize_dynamic(family("vit"), {nn.Linear})
        batvit.patch(model, keep_rate=0.5)
        with torch.no_grad():
            assert model(pictures(model)).isfinite().all()
