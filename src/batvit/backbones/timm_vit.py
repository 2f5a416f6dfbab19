"""timm's Vision Transformers with absolute positions."""

from typing import Any, ClassVar

from timm.layers.attention import Attention
from timm.models.deit import VisionTransformerDistilled
from timm.models.vision_transformer import Block, VisionTransformer
from torch import Tensor, nn

from batvit.backbones.adapter import Anatomy
from batvit.backbones.timm_common import (
    NormCapture,
    TimmAdapter,
    WithHead,
    timm_anatomy,
)
from batvit.reduction.block import Parts, ReducedBlock, refuse_mask
from batvit.reduction.site import QueriesKeys
from batvit.reduction.tokens import Tokens


class ReducedTimmBlock(ReducedBlock, Block):
    """timm's block, reduced."""

    parts = Parts("norm1", "attn", ("ls1", "drop_path1"), "norm2", "mlp", ("ls2", "drop_path2"))
    attentions = (Attention,)
    mask = "attn_mask"

    def forward(
        self,
        x: Tensor | Tokens,
        attn_mask: Tensor | None = None,
        is_causal: bool = False,
        output_form: str | None = None,
    ) -> Any:
        """Do as the block's own."""
        refuse_mask(attn_mask, is_causal)
        return self.run(x, output_form=output_form)

    def attend(
        self, x: Tensor, bias: Tensor | None, arguments: dict[str, Any]
    ) -> tuple[Tensor, QueriesKeys]:
        attention: Any = self.attn
        capture = NormCapture(attention)
        attended = capture(x, attn_mask=bias)
        return attended, QueriesKeys(capture.queries, capture.keys, attention.scale)


class ReducedVisionTransformer(WithHead, VisionTransformer):
    """timm's Vision Transformer with reduced blocks."""


class ReducedVisionTransformerDistilled(WithHead, VisionTransformerDistilled):
    """timm's distilled DeiT with reduced blocks."""


class TimmViT(TimmAdapter):
    """ViT, DeiT, DINOv2, MAE, CLIP, SigLIP: all of them are timm's VisionTransformer."""

    families: ClassVar[dict[str, str]] = {
        "ViT, AugReg": "vit_base_patch16_224",
        "DeiT": "deit_small_patch16_224",
        "DeiT distilled": "deit_small_distilled_patch16_224",
        "DeiT-III": "deit3_small_patch16_224",
        "DINOv2": "vit_small_patch14_dinov2",
        "DINOv2 with registers": "vit_small_patch14_reg4_dinov2",
        "MAE": "vit_base_patch16_224.mae",
        "CLIP image tower": "vit_base_patch16_clip_224",
        "SigLIP image tower": "vit_base_patch16_siglip_224",
    }
    blocks = (ReducedTimmBlock,)
    models = (ReducedVisionTransformer, ReducedVisionTransformerDistilled)

    def anatomy(self, model: nn.Module, image_size: tuple[int, int] | None = None) -> Anatomy:
        vit: Any = model
        return timm_anatomy(vit, image_size, class_token=vit.has_class_token)


ADAPTER = TimmViT()
