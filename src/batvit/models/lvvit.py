"""LV-ViT, of the paper on token labeling (Jiang et al., NeurIPS 2021).

"All Tokens Matter: Token Labeling for Training Better Vision Transformers",
https://arxiv.org/abs/2104.10858. A Vision Transformer with a convolutional stem, halved residual
branches and two heads: one reads the class token, one every patch token.

Importing this file puts the models into timm's registry:
``timm.create_model("lvvit_small_patch16_224")``; for pictures of 384 or 448 pixels add
``img_size=384``.
"""

from functools import partial
from typing import Any

import torch
from jaxtyping import Float
from timm.data import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from timm.layers import LayerNorm, PatchEmbed, nchw_to, to_2tuple, trunc_normal_
from timm.models import build_model_with_cfg, generate_default_cfgs, register_model
from timm.models.vision_transformer import VisionTransformer, checkpoint_filter_fn
from torch import Tensor, nn
from torch.nn import functional

__all__ = ["ConvStem", "Divide", "LVViT"]


class Divide(nn.Module):
    """Divide by a constant: stands where timm's blocks have their layer scale, without weights."""

    def __init__(self, divisor: float) -> None:
        super().__init__()
        self.divisor = divisor

    def forward(self, x: Tensor) -> Tensor:
        """Return the same shape, whatever it is."""
        return x / self.divisor

    def extra_repr(self) -> str:
        """The divisor."""
        return str(self.divisor)


class ConvStem(PatchEmbed):
    """Patch embedding by four convolutions.

    One of 7x7 with stride 2, two of 3x3, and one that takes half a patch per step.

    Args:
        img_size, patch_size, in_chans, embed_dim, bias: as for timm's ``PatchEmbed``; the sides of
            a patch are even.
        width: channels between the convolutions.
        options: the other arguments of ``PatchEmbed``.
    """

    def __init__(
        self,
        img_size: int | tuple[int, int] | None = 224,
        patch_size: int | tuple[int, int] = 16,
        in_chans: int = 3,
        embed_dim: int = 768,
        *,
        bias: bool = True,
        width: int = 64,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
        **options: Any,
    ) -> None:
        where: dict[str, Any] = {"device": device, "dtype": dtype}
        super().__init__(
            img_size, to_2tuple(patch_size), in_chans, embed_dim, bias=bias, **options, **where
        )
        if any(side % 2 for side in self.patch_size):
            raise ValueError(
                "the stem of LV-ViT halves the image first: "
                f"patch_size must be even, got {patch_size}"
            )
        half = tuple(side // 2 for side in self.patch_size)
        self.in_chans = in_chans
        self.conv1 = nn.Conv2d(in_chans, width, 7, stride=2, padding=3, bias=False, **where)
        self.bn1 = nn.BatchNorm2d(width, **where)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=False, **where)
        self.bn2 = nn.BatchNorm2d(width, **where)
        self.conv3 = nn.Conv2d(width, width, 3, padding=1, bias=False, **where)
        self.bn3 = nn.BatchNorm2d(width, **where)
        self.proj = nn.Conv2d(width, embed_dim, half, stride=half, bias=bias, **where)

    def set_input_size(
        self,
        img_size: int | tuple[int, int] | None = None,
        patch_size: int | tuple[int, int] | None = None,
    ) -> None:
        """Change the size of the pictures; that of a patch is fixed by the convolutions."""
        if patch_size is not None and to_2tuple(patch_size) != self.patch_size:
            raise ValueError(
                f"the stem of LV-ViT has patches of {self.patch_size}, "
                f"which cannot become {patch_size}"
            )
        super().set_input_size(None if img_size is None else to_2tuple(img_size))

    def forward(
        self, x: Float[Tensor, "batch channels height width"]
    ) -> Float[Tensor, "batch *patches_and_features"]:
        """Return patches (batch, patches, features), or in the layout that ``output_fmt`` names."""
        x = self._fitted(x)
        x = self.bn1(self.conv1(x)).relu()
        x = self.bn2(self.conv2(x)).relu()
        x = self.bn3(self.conv3(x)).relu()
        x = self.proj(x)
        x = x.flatten(2).transpose(1, 2) if self.flatten else nchw_to(x, self.output_fmt)
        patches: Tensor = self.norm(x)
        return patches

    def _fitted(self, x: Tensor) -> Tensor:
        """Pad pictures to whole patches, or refuse them, by the rules of ``PatchEmbed``."""
        size = tuple(x.shape[-2:])
        # what is missing to a multiple of a patch
        down = -size[0] % self.patch_size[0]
        right = -size[1] % self.patch_size[1]
        if self.img_size is not None and self.strict_img_size:
            torch._assert(
                size == tuple(self.img_size),
                f"Input size {size} does not match the model's {self.img_size}.",
            )
        elif not self.dynamic_img_pad:
            torch._assert(
                down == right == 0,
                f"Input size {size} is not divisible by the patch size {self.patch_size}.",
            )
        return functional.pad(x, (0, right, 0, down)) if self.dynamic_img_pad else x


class LVViT(VisionTransformer):
    """LV-ViT, built of timm's own blocks, with the parameter names of the published checkpoints.

    The logits are ``head(class token) + 0.5 * max over patch tokens of aux_head(patch token)``. The
    patch tokens may have been merged on the way: the maximum is over those that are left.

    Args:
        skip_lam: what the residual branches are divided by.
        token_labeling: whether a model in training mode returns both heads' logits,
            ``(class_logits, dense_logits)`` of shapes (batch, classes) and (batch, patch tokens,
            classes), for a loss with a label for every token. May be set as an attribute, but
            before ``batvit.patch``. Without it, and always in eval mode, one tensor (batch,
            classes) is returned.
        options: the arguments of timm's ``VisionTransformer``, with LV-ViT's own defaults where
            they differ: no bias in qkv, layer norms with an epsilon of 1e-5.
    """

    def __init__(
        self, *, skip_lam: float = 2.0, token_labeling: bool = False, **options: Any
    ) -> None:
        if options.get("init_values"):
            raise ValueError(
                f"LV-ViT has no layer scale: init_values must be None, got {options['init_values']}"
            )
        _check_pool(options.get("num_classes", 1000), options.get("global_pool", "token"))
        own: dict[str, Any] = {
            "qkv_bias": False,
            "embed_layer": ConvStem,
            "norm_layer": partial(LayerNorm, eps=1e-5),
        }
        super().__init__(**own | options)
        self.token_labeling = token_labeling
        for block in self.blocks:
            block.ls1 = Divide(skip_lam)
            block.ls2 = Divide(skip_lam)
        self.aux_head = self._new_aux_head()
        self._init_weights(self.aux_head)

    def init_weights(self, *args: Any, **kwargs: Any) -> None:
        """Start as timm does, but the class token like the position embedding."""
        super().init_weights(*args, **kwargs)
        if self.cls_token is not None:
            trunc_normal_(self.cls_token, std=0.02)

    def reset_classifier(self, num_classes: int, global_pool: str | None = None) -> None:
        """Replace both heads; with no classes the model returns pooled features."""
        _check_pool(num_classes, self.global_pool if global_pool is None else global_pool)
        super().reset_classifier(num_classes, global_pool)
        self.aux_head = self._new_aux_head()

    def forward_head(  # type: ignore[override]
        self, x: Float[Tensor, "batch tokens features"], pre_logits: bool = False
    ) -> (
        Float[Tensor, "batch *features"]
        | tuple[Float[Tensor, "batch classes"], Float[Tensor, "batch patches classes"]]
    ):
        """Return the logits of normed tokens, the class token first.

        Without classes, or with ``pre_logits``, features are returned.
        """
        if pre_logits or self.num_classes == 0:
            return super().forward_head(x, pre_logits=pre_logits)
        x = self.head_drop(self.fc_norm(x))
        logits: Tensor = self.head(self.pool(x))
        dense: Tensor = self.aux_head(x[:, self.num_prefix_tokens :])
        if self.token_labeling and self.training:
            return logits, dense
        return logits + 0.5 * dense.amax(dim=1)

    def _new_aux_head(self) -> nn.Module:
        if self.num_classes == 0:
            return nn.Identity()
        like = self.patch_embed.proj.weight
        head = nn.Linear(self.embed_dim, self.num_classes, device=like.device, dtype=like.dtype)
        return head.train(self.training)


def _check_pool(num_classes: int, global_pool: str) -> None:
    if num_classes > 0 and global_pool != "token":
        raise ValueError(
            "LV-ViT classifies by its class token and all of its patch tokens: "
            f"global_pool must be 'token', got {global_pool!r}; any other needs num_classes=0"
        )


def _cfg(**changes: Any) -> dict[str, Any]:
    """Return what timm wants to know of weights that it does not have."""
    cfg = {
        "url": "",
        "num_classes": 1000,
        "input_size": (3, 224, 224),
        "pool_size": None,
        "crop_pct": 0.9,
        "interpolation": "bicubic",
        "fixed_input_size": True,
        "mean": IMAGENET_DEFAULT_MEAN,
        "std": IMAGENET_DEFAULT_STD,
        "first_conv": "patch_embed.conv1",
        "classifier": ("head", "aux_head"),
        "paper_ids": "arXiv:2104.10858",
        "origin_url": "https://github.com/zihangJiang/TokenLabeling",
    }
    return cfg | changes


default_cfgs = generate_default_cfgs(
    {
        "lvvit_small_patch16_224": _cfg(),
        "lvvit_medium_patch16_224": _cfg(crop_pct=1.0),
    }
)


def _create(variant: str, pretrained: bool, **options: Any) -> nn.Module:
    features = {"out_indices": options.pop("out_indices", 3), "feature_cls": "getter"}
    return build_model_with_cfg(
        LVViT,
        variant,
        pretrained,
        pretrained_filter_fn=checkpoint_filter_fn,
        feature_cfg=features,
        **options,
    )


@register_model
def lvvit_small_patch16_224(pretrained: bool = False, **options: Any) -> nn.Module:
    """LV-ViT-S: 16 blocks, 384 features, 26.2 M parameters."""
    own = {"patch_size": 16, "embed_dim": 384, "depth": 16, "num_heads": 6, "mlp_ratio": 3.0}
    return _create("lvvit_small_patch16_224", pretrained, **own | options)


@register_model
def lvvit_medium_patch16_224(pretrained: bool = False, **options: Any) -> nn.Module:
    """LV-ViT-M: 20 blocks, 512 features, 55.8 M parameters."""
    own = {"patch_size": 16, "embed_dim": 512, "depth": 20, "num_heads": 8, "mlp_ratio": 3.0}
    return _create("lvvit_medium_patch16_224", pretrained, **own | options)
