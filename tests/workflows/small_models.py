"""Small models of the libraries that make a model from sizes alone."""

import open_clip
import timm
import torchvision

# of transformers' configurations
SIZE = {"image_size": 48, "patch_size": 8, "hidden_size": 48, "num_attention_heads": 4}
LAYERS = {"num_hidden_layers": 3, "intermediate_size": 96}
MODELS = {
    "timm": lambda: timm.create_model("test_vit", img_size=48, patch_size=8, depth=3),
    "timm eva": lambda: timm.create_model(
        "vit_small_patch16_dinov3", img_size=48, patch_size=8, depth=3, embed_dim=48, num_heads=3
    ),
    "torchvision": lambda: torchvision.models.VisionTransformer(48, 8, 3, 4, 48, 96),
    "open_clip": lambda: open_clip.transformer.VisionTransformer(
        48, 8, 48, 3, 4, 2.0, output_dim=7
    ),
}
