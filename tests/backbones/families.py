"""Every supported family as a small model; random weights everywhere, so that a lost part shows."""

from functools import partial

import open_clip
import timm
import torch
import transformers
from torch.utils._pytree import tree_leaves
from torchvision.models import VisionTransformer as TorchvisionViT

import batvit
import batvit.models.lvvit  # into timm's registry
from batvit.backbones.registry import anatomy_of
from batvit.testing.run_contract import randomised


def of_timm(name, depth, **settings):
    return timm.create_model(
        name, **({"depth": depth, "embed_dim": 48, "num_heads": 3, "num_classes": 7} | settings)
    )


SMALL = {
    "hidden_size": 48,
    "num_attention_heads": 3,
    "intermediate_size": 96,
    "image_size": 96,
    "patch_size": 16,
}
TEXT = {
    "hidden_size": 48,
    "num_attention_heads": 3,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "vocab_size": 99,
}


def of_transformers(model, config, depth, **settings):
    settings = SMALL | {"num_hidden_layers": depth} | settings
    return getattr(transformers, model)(getattr(transformers, config)(**settings))


def of_two_towers(model, kind, depth, **settings):
    """A model with a text tower beside that for images."""
    texts = getattr(transformers, f"{kind}TextConfig")(**TEXT).to_dict()
    pictures = getattr(transformers, f"{kind}VisionConfig")(
        **SMALL, num_hidden_layers=depth
    ).to_dict()
    config = getattr(transformers, f"{kind}Config")(
        text_config=texts, vision_config=pictures, **settings
    )
    return getattr(transformers, model)(config)


def in_order(module, args, arguments):
    """Give noise in order: a masked autoencoder would else shuffle the patches in every pass."""
    images, side = args[0], module.config.image_size // module.config.patch_size
    noise = torch.arange(side * side, device=images.device).float().expand(len(images), -1)
    return args, arguments | {"noise": noise}


def masked_autoencoder(depth=4, **settings):
    model = of_transformers("ViTMAEModel", "ViTMAEConfig", depth, **settings)
    model.embeddings.register_forward_pre_hook(in_order, with_kwargs=True)
    return model


def of_torchvision(depth):
    return TorchvisionViT(96, 16, depth, 3, 48, 96, num_classes=7)


def of_open_clip(depth, **settings):
    return open_clip.transformer.VisionTransformer(
        96, 16, 48, depth, 3, 2.0, output_dim=7, **settings
    )


def of_open_clip_pair(depth):
    vision = open_clip.CLIPVisionCfg(
        layers=depth, width=48, head_width=16, patch_size=16, image_size=96
    )
    return open_clip.CLIP(
        7,
        vision,
        open_clip.CLIPTextCfg(context_length=8, vocab_size=99, width=48, heads=3, layers=2),
    )


def of_coca(depth):
    vision = open_clip.CLIPVisionCfg(
        layers=depth,
        width=48,
        head_width=16,
        patch_size=16,
        image_size=96,
        attentional_pool=True,
        attn_pooler_heads=2,
    )
    vision.output_tokens = True
    texts = {"context_length": 8, "vocab_size": 99, "width": 48, "heads": 3, "layers": 2}
    own = open_clip.CLIPTextCfg(**texts, embed_cls=True, output_tokens=True)
    return open_clip.CoCa(16, open_clip.coca_model.MultimodalCfg(**texts), own, vision)


TIMM = {
    "vit": ("vit_base_patch16_224", {"img_size": 96}),
    "augreg": ("vit_tiny_patch16_224.augreg_in21k_ft_in1k", {"img_size": 96}),
    "qk_norm": ("vit_base_patch16_224", {"img_size": 96, "qk_norm": True}),
    "deit": ("deit_tiny_patch16_224", {"img_size": 96}),
    "deit_distilled": ("deit_tiny_distilled_patch16_224", {"img_size": 96}),
    "deit3": ("deit3_small_patch16_224", {"img_size": 96}),
    "dinov2": ("vit_small_patch14_dinov2", {"img_size": 84}),
    "dinov2_giant": ("vit_giant_patch14_dinov2", {"img_size": 84}),
    "dinov2_registers": ("vit_small_patch14_reg4_dinov2", {"img_size": 84}),
    "mae": ("vit_base_patch16_224.mae", {"img_size": 96, "global_pool": "avg"}),
    "gap": ("vit_medium_patch16_gap_240", {"img_size": 96}),
    "clip": ("vit_base_patch16_clip_224", {"img_size": 96}),
    "siglip": ("vit_base_patch16_siglip_224", {"img_size": 96}),
    "features": ("vit_base_patch16_224", {"img_size": 96, "global_pool": "", "num_classes": 0}),
    "not_square": ("vit_base_patch16_224", {"img_size": (64, 144)}),
    "dynamic": ("deit_tiny_patch16_224", {"img_size": 96, "dynamic_img_size": True}),
    "eva": ("eva_giant_patch14_224", {"img_size": 84}),
    "eva02": ("eva02_tiny_patch14_224", {"img_size": 84}),
    "eva02_dynamic": ("eva02_small_patch14_224", {"img_size": 84, "dynamic_img_size": True}),
    "dinov3": ("vit_small_patch16_dinov3", {"img_size": 96}),
    "perception_encoder": ("vit_pe_core_tiny_patch16_384", {"img_size": 96}),
    "rope_mixed": ("vit_small_patch16_rope_mixed_224", {"img_size": 96}),
    "rope_gap": ("vit_medium_patch16_rope_reg1_gap_256", {"img_size": 96}),
    "lvvit": ("lvvit_small_patch16_224", {"img_size": 96}),
}
# without the random scales that it draws for every image in training
YOLOS = {"use_mid_position_embeddings": False, "num_detection_tokens": 5, "image_size": (96, 96)}
STILL = {"pos_embed_rescale": None, "num_register_tokens": 2}
OTHERS = {
    "hf_vit": partial(of_transformers, "ViTForImageClassification", "ViTConfig"),
    "hf_vit_eager": partial(
        of_transformers, "ViTForImageClassification", "ViTConfig", attn_implementation="eager"
    ),
    "hf_vit_not_square": partial(of_transformers, "ViTModel", "ViTConfig", image_size=(64, 144)),
    "hf_deit": partial(of_transformers, "DeiTForImageClassification", "DeiTConfig"),
    "hf_deit_distilled": partial(
        of_transformers, "DeiTForImageClassificationWithTeacher", "DeiTConfig"
    ),
    "hf_dinov2": partial(of_transformers, "Dinov2ForImageClassification", "Dinov2Config"),
    "hf_dinov2_swiglu": partial(
        of_transformers, "Dinov2Model", "Dinov2Config", use_swiglu_ffn=True
    ),
    "hf_dinov2_backbone": partial(
        of_transformers, "Dinov2Backbone", "Dinov2Config", out_indices=[1, -1]
    ),
    "hf_dinov2_registers": partial(
        of_transformers,
        "Dinov2WithRegistersForImageClassification",
        "Dinov2WithRegistersConfig",
        num_register_tokens=4,
    ),
    "hf_dinov3": partial(of_transformers, "DINOv3ViTModel", "DINOv3ViTConfig", **STILL),
    "hf_dinov3_gated": partial(
        of_transformers, "DINOv3ViTModel", "DINOv3ViTConfig", use_gated_mlp=True, **STILL
    ),
    "hf_mae": partial(masked_autoencoder, mask_ratio=0.0),
    "hf_mae_masked": partial(masked_autoencoder, mask_ratio=0.25),
    "hf_clip_vision": partial(of_transformers, "CLIPVisionModel", "CLIPVisionConfig"),
    "hf_clip_projection": partial(
        of_transformers, "CLIPVisionModelWithProjection", "CLIPVisionConfig"
    ),
    "hf_clip": partial(of_two_towers, "CLIPModel", "CLIP"),
    "hf_clip_classifier": partial(of_two_towers, "CLIPForImageClassification", "CLIP"),
    "hf_siglip_vision": partial(of_transformers, "SiglipVisionModel", "SiglipVisionConfig"),
    "hf_siglip": partial(of_two_towers, "SiglipModel", "Siglip"),
    # a family for each kind of layer of transformers that differs
    "hf_pixio": partial(of_transformers, "PixioModel", "PixioConfig"),
    "hf_internvl": partial(of_transformers, "InternVLVisionModel", "InternVLVisionConfig"),
    "hf_mlcd": partial(of_transformers, "MLCDVisionModel", "MLCDVisionConfig"),
    "hf_blip": partial(of_transformers, "BlipVisionModel", "BlipVisionConfig"),
    "hf_blip_2": partial(of_transformers, "Blip2VisionModel", "Blip2VisionConfig"),
    "hf_idefics3": partial(of_transformers, "Idefics3VisionTransformer", "Idefics3VisionConfig"),
    "hf_flava": partial(of_transformers, "FlavaImageModel", "FlavaImageConfig"),
    "hf_data2vec": partial(of_transformers, "Data2VecVisionModel", "Data2VecVisionConfig"),
    "hf_beit": partial(of_transformers, "BeitModel", "BeitConfig"),
    "hf_vitpose": partial(of_transformers, "VitPoseBackbone", "VitPoseBackboneConfig"),
    "hf_yolos": partial(of_transformers, "YolosForObjectDetection", "YolosConfig", **YOLOS),
    "hf_mgp": partial(of_transformers, "MgpstrModel", "MgpstrConfig", image_size=(96, 96)),
    "torchvision": of_torchvision,
    "open_clip_tower": of_open_clip,
    "open_clip_pooled": partial(of_open_clip, pool_type="avg", ls_init_value=0.1),
    "open_clip": of_open_clip_pair,
    "open_clip_coca": of_coca,
}
FAMILIES = [*TIMM, *OTHERS]


def small(name, depth=4):
    """A model of a family as its library makes it."""
    if name in OTHERS:
        return OTHERS[name](depth=depth)
    model_name, settings = TIMM[name]
    return of_timm(model_name, depth, **settings)


def family(name, depth=5):
    """A model in eval mode whose every parameter is random, also LayerScale, registers, norms."""
    return randomised(small(name, depth))


def pictures(model, batch=2, size=None, seed=1):
    """Normally distributed pictures of the model's size."""
    height, width = size or anatomy_of(model).image_size
    return torch.randn(batch, 3, height, width, generator=torch.Generator().manual_seed(seed))


# of these the tower, which alone is compiled, is another's
SAME = ("augreg", "hf_clip", "hf_siglip")
GRAPHS = [name for name in FAMILIES if name not in SAME]


def reduced_tower(name, mode):
    """A block that reduces, and one after it; of one family one before it, too."""
    depth, site = (3, 1) if name == "deit" else (2, 0)
    return anatomy_of(
        batvit.patch(family(name, depth=depth), mode=mode, keep_rate=0.6, blocks=(site,))
    ).tower


def close(found, expected):
    """Two outputs, whatever holds their tensors."""
    for x, y in zip(tree_leaves(found), tree_leaves(expected), strict=True):
        torch.testing.assert_close(x, y, rtol=1e-5, atol=1e-5)
