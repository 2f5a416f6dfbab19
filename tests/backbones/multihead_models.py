"""Small models of torchvision and open_clip, whose blocks are around nn.MultiheadAttention."""

import open_clip
import torch
from open_clip.coca_model import CoCa
from open_clip.model import CLIP
from torchvision.models.vision_transformer import ConvStemConfig, VisionTransformer

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


def small(name):
    return randomised(MODELS[name]())


@torch.no_grad()
def run(model, x):
    out = model(x)
    return torch.cat([part.flatten(1) for part in out], dim=1) if isinstance(out, tuple) else out


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
