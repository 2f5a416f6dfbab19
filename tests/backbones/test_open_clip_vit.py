"""open_clip's own Vision Transformers, alone and in models that take texts too."""

import pytest
import torch
from families import pictures
from multihead_models import MODELS, clip, open_clip_vit, run, small
from open_clip.coca_model import CoCa
from open_clip.model import CLIP, CustomTextCLIP
from open_clip.transformer import Transformer

import batvit
from batvit.backbones.registry import anatomy_of
from batvit.reduction.site import reductions

OPEN_CLIP_MODELS = [name for name in MODELS if name.startswith("open_clip")]


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


TIMM = {"timm_model_name": "vit_tiny_patch16_224", "timm_pool": "token", "timm_proj": "linear"}


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


def test_other_blocks_of_open_clip_are_refused():
    with pytest.raises(
        TypeError, match=r"the block of block 0 is open_clip.*\.CustomResidualAttentionBlock"
    ):
        batvit.patch(open_clip_vit(qk_norm=True), keep_rate=0.5)


@pytest.mark.parametrize("name", ["test_resnet", "test_convnext", "test_vit_relpos"])
def test_towers_of_timm_that_cannot_be_reduced_are_not_recommended(name):
    image = {"timm_model_name": name, "timm_pool": "", "image_size": 64}
    model = clip(vision_cfg=image)
    for part in (model, model.visual):
        with pytest.raises(
            TypeError, match=r"image tower is timm's \w+ in .*cannot reduce"
        ) as caught:
            batvit.patch(part, keep_rate=0.5)
        assert "trunk" not in str(caught.value)


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
