"""timm's Vision Transformers with rotary positions.

EVA, EVA-02, DINOv3, Perception Encoder, ViT-RoPE.
"""

from typing import Any, ClassVar

import torch
from timm.layers import apply_rot_embed_cat
from timm.layers.attention import AttentionRope
from timm.models.eva import Eva, EvaAttention, EvaBlock
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


class ReducedEvaBlock(ReducedBlock, EvaBlock):
    """timm's EVA block, reduced; every block is given the rotary table of all patches."""

    parts = Parts(
        "norm1", "attn", ("scaled1", "drop_path1"), "norm2", "mlp", ("scaled2", "drop_path2")
    )
    attentions = (EvaAttention, AttentionRope)
    mask = "attn_mask"

    def forward(
        self,
        x: Tensor | Tokens,
        rope: Tensor | None = None,
        attn_mask: Tensor | None = None,
        is_causal: bool = False,
        output_form: str | None = None,
    ) -> Any:
        """Do as the block's own."""
        refuse_mask(attn_mask, is_causal)
        return self.run(x, output_form=output_form, rope=rope)

    def rope(self, arguments: dict[str, Any]) -> tuple[Tensor, ...]:
        return () if arguments["rope"] is None else (arguments["rope"],)

    def with_rope(self, arguments: dict[str, Any], rope: tuple[Tensor, ...]) -> dict[str, Any]:
        return {"rope": rope[0]}

    def attend(
        self, x: Tensor, bias: Tensor | None, arguments: dict[str, Any]
    ) -> tuple[Tensor, QueriesKeys]:
        capture = NormCapture(self.attn)
        attended = capture(x, attn_mask=bias, **arguments)
        queries = self._rotated(capture.queries, arguments["rope"])
        keys = self._rotated(capture.keys, arguments["rope"])
        # with grouped queries, several heads share a key
        heads_per_key = queries.shape[1] // keys.shape[1]
        keys = keys.repeat_interleave(heads_per_key, dim=1)
        return attended, QueriesKeys(queries, keys, self.attn.scale)

    @classmethod
    def trial(cls, block: Any, x: Tensor) -> dict[str, Any]:
        patches = x.shape[1] - block.attn.num_prefix_tokens
        # not every version says how wide a head is
        head_width = round(block.attn.scale**-2)
        angles = torch.arange(patches * head_width, device=x.device).view(patches, -1).to(x.dtype)
        return {"rope": torch.cat([angles.sin(), angles.cos()], dim=-1)}

    def _rotated(self, x: Tensor, rope: Tensor | None) -> Tensor:
        """Return queries or keys after the norm, as the attention turns them."""
        if rope is None:
            return x
        prefix = self.attn.num_prefix_tokens
        patches = apply_rot_embed_cat(x[:, :, prefix:], rope, half=self.attn.rotate_half)
        return torch.cat([x[:, :, :prefix], patches], dim=2)

    def scaled1(self, x: Tensor) -> Tensor:
        """Apply the LayerScale of the attention, if there is one."""
        return x if self.gamma_1 is None else self.gamma_1 * x

    def scaled2(self, x: Tensor) -> Tensor:
        """Apply the LayerScale of the MLP, if there is one."""
        return x if self.gamma_2 is None else self.gamma_2 * x


class ReducedEva(WithHead, Eva):
    """timm's Eva with reduced blocks."""


class TimmEva(TimmAdapter):
    """timm's Eva class, whatever its weights are called."""

    families: ClassVar[dict[str, str]] = {
        "EVA, EVA-02": "eva02_tiny_patch14_224",
        "DINOv3": "vit_small_patch16_dinov3",
        "Perception Encoder": "vit_pe_core_tiny_patch16_384",
        "ViT-RoPE": "vit_small_patch16_rope_224",
    }
    blocks = (ReducedEvaBlock,)
    models = (ReducedEva,)

    def anatomy(self, model: nn.Module, image_size: tuple[int, int] | None = None) -> Anatomy:
        eva: Any = model
        return timm_anatomy(eva, image_size, class_token=eva.cls_token is not None)


ADAPTER = TimmEva()
