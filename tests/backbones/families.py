"""Every supported family as a small model with random weights everywhere, so that a dropped part shows."""

import timm
import torch

SMALL = {"depth": 5, "embed_dim": 48, "num_heads": 3, "num_classes": 7}

FAMILIES = {
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
}


def family(name, depth=5):
    """A model in eval mode whose every parameter is random, LayerScale, registers and norms included."""
    model_name, settings = FAMILIES[name]
    model = timm.create_model(model_name, **(SMALL | settings | {"depth": depth}))
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(0, 0.2, generator=generator)
            # norms stay near one, so that five blocks neither vanish nor explode
            parameter.add_(1 if parameter.dim() == 1 and parameter.mean() > 0 else 0)
    return model.eval()


def pictures(model, batch=2, size=None, seed=1):
    """Normally distributed pictures of the model's size."""
    height, width = size or model.patch_embed.img_size
    return torch.randn(batch, 3, height, width, generator=torch.Generator().manual_seed(seed))
