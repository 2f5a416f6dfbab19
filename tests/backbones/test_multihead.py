"""torchvision and open_clip: blocks around nn.MultiheadAttention."""

import copy
import pickle

import open_clip
import pytest
import torch
from families import pictures
from open_clip.coca_model import CoCa
from open_clip.model import CLIP, CustomTextCLIP
from open_clip.transformer import Transformer
from torch import nn
from torchvision.models.vision_transformer import ConvStemConfig, VisionTransformer

import batvit
from batvit.backbones.registry import anatomy_of
from batvit.core import unmerge
from batvit.measure.macs import count_macs
from batvit.reduction.block import ReducedBlock
from batvit.reduction.site import reductions
from batvit.testing.run_contract import randomised

TORCHVISION = {
    "image_size": 48,
    "patch_size": 8,
    "num_layers": 4,
    "hidden_dim": 48,
    "mlp_dim": 96,
    "num_classes": 7,
}
OPEN_CLIP = {"image_size": 48, "patch_size": 8, "width": 48, "layers": 4, "mlp_ratio": 2.0}
VISION = OPEN_CLIP | {"head_width": 16}
TEXT = {"context_length": 6, "vocab_size": 11, "width": 48, "heads": 3, "layers": 2}
TIMM = {"timm_model_name": "vit_tiny_patch16_224", "timm_pool": "token", "timm_proj": "linear"}


def torchvision_vit(**settings):
    return VisionTransformer(**TORCHVISION | {"num_heads": 3} | settings)


def open_clip_vit(**settings):
    return open_clip.transformer.VisionTransformer(
        **OPEN_CLIP | {"heads": 3, "output_dim": 16} | settings
    )


# of an even number of heads, nn.MultiheadAttention has a fast path
MODELS = {
    "torchvision": torchvision_vit,
    "torchvision_fast": lambda: torchvision_vit(num_heads=4),
    "torchvision_stem": lambda: torchvision_vit(
        conv_stem_configs=[ConvStemConfig(8, 3, 4), ConvStemConfig(12, 3, 2)]
    ),
    "open_clip": open_clip_vit,
    "open_clip_fast": lambda: open_clip_vit(heads=4, ls_init_value=1.0, image_size=(48, 64)),
    "open_clip_mean": lambda: open_clip_vit(pool_type="avg", final_ln_after_pool=True),
    "open_clip_tokens": lambda: open_clip_vit(output_tokens=True, no_ln_pre=True),
    "open_clip_pooler": lambda: open_clip_vit(
        attentional_pool=True, attn_pooler_heads=2, attn_pooler_queries=5
    ),
}
OPEN_CLIP_MODELS = [name for name in MODELS if name.startswith("open_clip")]
every_model = pytest.mark.parametrize("name", MODELS)
every_mode = pytest.mark.parametrize("mode", ["paper", "training-free"])


def small(name):
    return randomised(MODELS[name]())


@torch.no_grad()
def run(model, x):
    out = model(x)
    return torch.cat([part.flatten(1) for part in out], dim=1) if isinstance(out, tuple) else out


@every_model
@every_mode
def test_keeping_everything_equals_the_untouched_model(name, mode):
    model = small(name)
    x = pictures(model)
    expected = run(model, x)
    batvit.patch(model, mode=mode, keep_rate=1.0)
    assert any(isinstance(block, ReducedBlock) for block in anatomy_of(model).blocks)
    assert expected.std() > 1e-3
    assert (run(model, x) - expected).abs().max() < 1e-5 * max(1.0, expected.abs().max())


@every_model
@every_mode
def test_unpatch_restores_bit_for_bit(name, mode):
    model = small(name)
    x = pictures(model)
    expected, keys = run(model, x), list(model.state_dict())
    attributes = [(type(module), sorted(vars(module))) for module in model.modules()]
    batvit.patch(model, mode=mode, keep_rate=0.5)
    assert list(model.state_dict()) == keys
    assert not torch.equal(run(model, x), expected)
    batvit.unpatch(model)
    assert list(model.state_dict()) == keys
    assert [(type(module), sorted(vars(module))) for module in model.modules()] == attributes
    assert torch.equal(run(model, x), expected)
    assert batvit.config_of(model) is None


@every_model
def test_counts_are_those_of_the_configuration(name):
    model = batvit.patch(small(name), tokens=(20, 11, 5), blocks=(0, 1, 3))
    blocks, patches, seen = anatomy_of(model).blocks, anatomy_of(model).patches, []
    for block in blocks[:-1]:
        block.register_forward_hook(lambda m, a, out: seen.append(out.x.shape[1] - 1))
    with batvit.trace(model) as trace:
        assert run(model, pictures(model)).isfinite().all()
    assert seen == [20, 11, 11]
    assert [site.origin.groups for site in trace.sites] == [20, 11, 5]
    assert all(site.origin.is_total and site.origin.is_onto for site in trace.sites)
    assert all(torch.equal(site.size, site.origin.sizes.float()) for site in trace.sites)
    assert trace.grid[0] * trace.grid[1] == patches


@every_model
def test_info_agrees_with_what_runs(name):
    model = batvit.patch(small(name), keep_rate=0.5)
    with batvit.trace(model) as trace:
        run(model, pictures(model))
    found = batvit.info(model)
    assert [found.blocks[s.counts.block].tokens_out for s in trace.sites] == [
        s.origin.groups for s in trace.sites
    ]
    assert found.model == "VisionTransformer"
    assert found.macs < found.dense_macs
    assert found.dense_macs == batvit.info(batvit.unpatch(model)).macs


@every_model
@pytest.mark.parametrize(
    "copied",
    [copy.deepcopy, lambda model: pickle.loads(pickle.dumps(model))],
    ids=["deepcopy", "pickle"],
)
def test_copies_compute_the_same_and_are_independent(name, copied):
    model = batvit.patch(small(name), keep_rate=0.6)
    x = pictures(model)
    expected = run(model, x)
    twin = copied(model)
    assert torch.equal(run(twin, x), expected)
    assert batvit.config_of(twin) == batvit.config_of(model)
    batvit.unpatch(twin)
    assert torch.equal(run(model, x), expected)


@pytest.mark.parametrize("name", OPEN_CLIP_MODELS)
def test_gradient_checkpointing_gives_the_same_gradients(name):
    model = batvit.patch(small(name), keep_rate=0.6)
    x = pictures(model)
    gradients = []
    for checkpointing in (False, True):
        model.set_grad_checkpointing(checkpointing)
        model.zero_grad()
        out = model(x)
        (out[0] if isinstance(out, tuple) else out).square().mean().backward()
        gradients.append(
            [p.grad.clone() for p in model.transformer.parameters() if p.grad is not None]
        )
    assert sum(g.abs().sum() for g in gradients[0]) > 0
    for plain, recomputed in zip(*gradients, strict=True):
        torch.testing.assert_close(recomputed, plain, rtol=1e-5, atol=1e-6)


@every_model
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=["bf16", "fp16"])
def test_low_precision(name, dtype):
    model = batvit.patch(small(name), keep_rate=0.6)
    x = pictures(model)
    with torch.autocast("cpu", dtype=dtype):
        assert run(model, x).isfinite().all()
    assert run(model.to(dtype), x.to(dtype)).dtype == dtype


@every_model
def test_a_training_step_reaches_every_block(name):
    model = batvit.patch(small(name), keep_rate=0.6).train()
    out = model(pictures(model))
    (out[0] if isinstance(out, tuple) else out).square().mean().backward()
    for block in anatomy_of(model).blocks:
        assert all(p.grad is not None and p.grad.isfinite().all() for p in block.parameters())


def by_hand(block, x, size):
    """A block's attention half from its weights alone: the result with its residual, and the attention (B, H, N, N)."""
    attention = getattr(block, block.parts.attention)
    heads, width = attention.num_heads, attention.embed_dim // attention.num_heads
    normed = block.ln_1(x)
    q, k, v = (normed @ attention.in_proj_weight.T + attention.in_proj_bias).chunk(3, dim=-1)
    q, k, v = (part.unflatten(-1, (heads, width)).transpose(1, 2) for part in (q, k, v))
    logs = torch.cat([torch.zeros(len(x), 1), size.log()], dim=1)[:, None, None]
    weights = (q @ k.transpose(-2, -1) / width**0.5 + logs).softmax(dim=-1)
    attended = attention.out_proj((weights @ v).transpose(1, 2).flatten(2))
    return x + (block.ls_1(attended) if hasattr(block, "ls_1") else attended), weights


@pytest.mark.parametrize("name", ["torchvision", "torchvision_fast", "open_clip", "open_clip_fast"])
@torch.no_grad()
def test_sizes_count_in_the_attention_and_in_the_importance(name):
    model = batvit.patch(small(name), tokens=(12, 6), blocks=(0, 2), size_aware=True)
    blocks, seen = anatomy_of(model).blocks, {}
    for i in (1, 2, 3):
        blocks[i].register_forward_hook(lambda m, args, out, i=i: seen.update({i: (args[0], out)}))
    blocks[2].reduce.register_forward_pre_hook(lambda m, args: seen.update(site=args))
    aware = run(model, pictures(model))

    def after(block, x):
        y = block.mlp(block.ln_2(x))
        return x + (block.ls_2(y) if hasattr(block, "ls_2") else y)

    tokens, out = seen[1]
    assert tokens.size.max() > 1
    half, _ = by_hand(blocks[1], tokens.x, tokens.size)
    torch.testing.assert_close(out.x, after(blocks[1], half), rtol=1e-4, atol=1e-4)
    tokens, captured, _ = seen["site"]
    half, weights = by_hand(blocks[2], seen[2][0].x, tokens.size)
    torch.testing.assert_close(tokens.x, half, rtol=1e-4, atol=1e-4)
    importance = blocks[2].reduce.importance(tokens, captured())
    torch.testing.assert_close(importance, weights[:, :, 0, 1:].mean(dim=1), rtol=1e-4, atol=1e-6)
    tokens, out = seen[3]
    half, _ = by_hand(blocks[3], tokens.x, tokens.size)
    expected = after(blocks[3], half)
    if blocks[3].output_form == "grid":
        expected = torch.cat([expected[:, :1], unmerge(expected[:, 1:], tokens.origin)], dim=1)
    torch.testing.assert_close(out, expected, rtol=1e-4, atol=1e-4)

    batvit.patch(model, tokens=(12, 6), blocks=(0, 2), size_aware=False)
    assert not torch.allclose(run(model, pictures(model)), aware, rtol=1e-3, atol=1e-3)


@every_model
@torch.no_grad()
def test_importance_is_the_attention_the_module_itself_reports(name):
    model = batvit.patch(small(name), keep_rate=0.5, blocks=(1,))
    block, seen = anatomy_of(model).blocks[1], {}
    attention = getattr(block, block.parts.attention)
    attention.register_forward_pre_hook(lambda m, args: seen.update(x=args[0]))
    block.reduce.register_forward_pre_hook(lambda m, args: seen.update(site=args))
    run(model, pictures(model))
    x = seen["x"]
    _, weights = type(attention).forward(
        attention, x, x, x, need_weights=True, average_attn_weights=False
    )
    tokens, captured, _ = seen["site"]
    importance = block.reduce.importance(tokens, captured())
    torch.testing.assert_close(importance, weights[:, :, 0, 1:].mean(dim=1), rtol=1e-4, atol=1e-6)


@every_model
def test_what_is_projected_once_more_is_a_part_of_the_reduction(name):
    model = batvit.patch(small(name), tokens=(12,), blocks=(1,))
    anatomy = anatomy_of(model)
    tokens, width = anatomy.prefix + anatomy.patches, anatomy.width
    macs = count_macs(anatomy.tower, (3, *anatomy.image_size))
    # the keys of all tokens and the query of the class token; the clustering comes on top
    assert macs[f"{anatomy.name_of(1)}.reduce"] > (tokens + 1) * width * width


@every_model
@torch.no_grad()
def test_nothing_is_projected_once_more_where_nothing_is_reduced(monkeypatch, name):
    model = batvit.patch(small(name), keep_rate=1.0, blocks=(1,))
    monkeypatch.setattr(
        "batvit.backbones.torch_multihead.captured", lambda *a, **k: pytest.fail("projected")
    )
    run(model, pictures(model))


@every_model
def test_the_attention_modules_own_hooks_fire(name):
    model = batvit.patch(small(name), keep_rate=0.5)
    fired = []
    for block in anatomy_of(model).blocks:
        attention = next(m for m in block.modules() if isinstance(m, nn.MultiheadAttention))
        attention.register_forward_hook(lambda m, a, out: fired.append(m))
    run(model, pictures(model))
    assert len(fired) == 4


@pytest.mark.parametrize("name", OPEN_CLIP_MODELS)
@pytest.mark.parametrize("checkpointing", [False, True])
def test_feature_maps_of_open_clip_have_the_whole_grid(name, checkpointing):
    model = batvit.patch(small(name), tokens=(12, 6), blocks=(1, 2), size_aware=True)
    model.set_grad_checkpointing(checkpointing)
    x, seen = pictures(model), []
    for block in anatomy_of(model).blocks:
        block.register_forward_hook(lambda m, args, out: seen.append(getattr(out, "x", out)))
    with batvit.trace(model) as trace:
        expected = run(model, x)
    first, second = trace.sites
    plain = seen[:4]
    maps = model.forward_intermediates(x)["image_intermediates"]
    grid = anatomy_of(model).grid
    assert [tuple(m.shape) for m in maps] == [(2, 48, *grid)] * 4
    rows = [m.flatten(2).transpose(1, 2) for m in maps]
    torch.testing.assert_close(rows[0], plain[0][:, 1:])
    torch.testing.assert_close(rows[1], first.unmerge(plain[1][:, 1:]))
    torch.testing.assert_close(rows[2], second.unmerge(plain[2][:, 1:]))
    assert all(len(rows[3][i].unique(dim=0)) == 6 for i in range(2))
    found = model.forward_intermediates(x, indices=[1], stop_early=True, intermediates_only=True)[
        "image_intermediates"
    ]
    torch.testing.assert_close(found, [maps[1]])
    features = model.forward_intermediates(x)["image_features"]
    torch.testing.assert_close(
        features.flatten(1), expected[:, : features[0].numel()], rtol=1e-4, atol=1e-4
    )


@torch.no_grad()
def test_what_reads_patches_is_given_one_for_each():
    model = batvit.patch(small("open_clip_tokens"), tokens=(6,), blocks=(2,))
    _, tokens = model(pictures(model))
    assert tokens.shape == (2, 36, 48)
    assert all(len(tokens[i].unique(dim=0)) == 6 for i in range(2))
    for name, reads in {
        "open_clip": True,
        "open_clip_mean": True,
        "open_clip_pooler": True,
        "torchvision": False,
    }.items():
        last = anatomy_of(batvit.patch(small(name), tokens=(6,), blocks=(2,))).blocks[-1]
        assert last.output_form == ("grid" if reads else "tensor")


def clip(kind=CLIP, **settings):
    torch.manual_seed(0)
    settings = {"embed_dim": 16, "vision_cfg": dict(VISION), "text_cfg": dict(TEXT)} | settings
    if kind is CoCa:
        settings["multimodal_cfg"] = dict(TEXT)
        settings["vision_cfg"] |= {
            "attentional_pool": True,
            "attn_pooler_heads": 2,
            "output_tokens": True,
        }
        settings["text_cfg"] |= {"embed_cls": True, "output_tokens": True}
    return kind(**settings).eval()


@pytest.mark.parametrize("kind", [CLIP, CustomTextCLIP, CoCa])
@torch.no_grad()
def test_of_a_model_with_texts_only_the_image_tower_is_reduced(kind):
    model = clip(kind)
    images, texts = pictures(model), torch.randint(1, 11, (2, 6))
    image, text = model.encode_image(images), model.encode_text(texts)
    kinds = {
        name: type(module)
        for name, module in model.named_modules()
        if not name.startswith("visual.")
    }
    batvit.patch(model, keep_rate=0.5)
    assert kinds == {
        name: type(module)
        for name, module in model.named_modules()
        if not name.startswith("visual.")
    }
    assert anatomy_of(model).tower is model.visual
    assert set(reductions(model)) == set(reductions(model.visual))
    with batvit.trace(model) as trace:
        reduced = model.encode_image(images)
    assert len(trace.sites) == len(reductions(model))
    assert trace.image_size == (48, 48)
    assert not torch.allclose(reduced, image, atol=1e-5)
    assert torch.equal(model.encode_text(texts), text)
    assert batvit.info(model).macs < batvit.info(model).dense_macs
    batvit.unpatch(model)
    assert type(model.visual.transformer) is Transformer
    assert torch.equal(model.encode_image(images), image)


def test_a_part_of_a_patched_model_can_be_unpatched():
    model = batvit.patch(clip(), keep_rate=0.5)
    batvit.unpatch(model.visual)
    assert reductions(model) == {}


def test_clip_gives_feature_maps_of_the_whole_grid():
    model = batvit.patch(clip(), keep_rate=0.5)
    found = model.forward_intermediates(pictures(model), image_indices=2)["image_intermediates"]
    assert [tuple(m.shape) for m in found] == [(2, 48, 6, 6)] * 2


def test_another_image_size_is_refused():
    for model in (torchvision_vit(), open_clip_vit(), clip()):
        with pytest.raises(ValueError, match="images of 48 x 48, got 64 x 48"):
            batvit.info(model, image_size=(64, 48))


def test_other_blocks_of_open_clip_are_refused():
    with pytest.raises(
        TypeError, match=r"the block of block 0 is open_clip.*\.CustomResidualAttentionBlock"
    ):
        batvit.patch(open_clip_vit(qk_norm=True), keep_rate=0.5)


def test_other_image_towers_of_open_clip_are_refused():
    timm_tower = clip(vision_cfg=dict(TIMM))
    with pytest.raises(TypeError, match=r"patch model\.visual\.trunk"):
        batvit.patch(timm_tower, keep_rate=0.5)
    with pytest.raises(TypeError, match=r"patch model\.trunk"):
        batvit.patch(timm_tower.visual, keep_rate=0.5)
    batvit.patch(timm_tower.visual.trunk, keep_rate=0.5)
    assert timm_tower.encode_image(torch.zeros(1, 3, 224, 224)).shape == (1, 16)
    with pytest.raises(TypeError, match="ModifiedResNet"):
        batvit.patch(
            clip(
                vision_cfg={"layers": (1, 1, 1, 1), "width": 16, "head_width": 16, "image_size": 32}
            ),
            keep_rate=0.5,
        )


def test_tokens_before_images_are_refused():
    model = open_clip_vit()
    model.transformer = Transformer(48, 4, 3, batch_first=False)
    with pytest.raises(TypeError, match="batch_first"):
        batvit.patch(model, keep_rate=0.5)


def test_masks_and_other_keys_are_refused():
    model = batvit.patch(open_clip_vit(), keep_rate=0.5, blocks=(0,))
    block, x = model.transformer.resblocks[0], torch.zeros(1, 37, 48)
    with pytest.raises(ValueError, match="attn_mask"):
        block(x, attn_mask=torch.zeros(37, 37))
    with pytest.raises(ValueError, match="k_x"):
        block(x, x, x)


def test_patches_left_out_in_training_are_no_trouble():
    model = batvit.patch(open_clip_vit(patch_dropout=0.5), keep_rate=0.5).train()
    assert model(pictures(model)).shape == (2, 16)


def test_both_libraries_are_among_the_supported():
    found = batvit.supported()
    assert found["torchvision"] == {"ViT": "vit_b_16"}
    assert "CLIP" in found["open_clip"]
