"""The layers of transformers' Vision Transformers, each in its reduced class."""

from typing import Any

from torch import Tensor
from transformers.models.clip import modeling_clip as clip
from transformers.models.deit import modeling_deit as deit
from transformers.models.dinov2 import modeling_dinov2 as dinov2
from transformers.models.dinov2_with_registers import (
    modeling_dinov2_with_registers as dinov2_registers,
)
from transformers.models.dinov3_vit import modeling_dinov3_vit as dinov3
from transformers.models.siglip import modeling_siglip as siglip
from transformers.models.vit import modeling_vit as vit
from transformers.models.vit_mae import modeling_vit_mae as mae

from batvit.backbones.transformers_common import ReducedLayer
from batvit.reduction.block import Parts

VIT = Parts("layernorm_before", "attention", ("dropout",), "layernorm_after", "mlp", ("dropout",))
DINO = Parts(
    "norm1",
    "attention",
    ("layer_scale1", "drop_path"),
    "norm2",
    "mlp",
    ("layer_scale2", "drop_path"),
)
CLIP = Parts("layer_norm1", "self_attn", (), "layer_norm2", "mlp", ())


class ReducedViTLayer(ReducedLayer, vit.ViTLayer):
    """ViT's layer, reduced."""

    parts = VIT
    attentions = (vit.ViTAttention,)


class ReducedDeiTLayer(ReducedLayer, deit.DeiTLayer):
    """DeiT's layer, reduced."""

    parts = VIT
    attentions = (deit.DeiTAttention,)


class ReducedViTMAELayer(ReducedLayer, mae.ViTMAELayer):
    """ViT-MAE's layer, reduced."""

    parts = VIT
    attentions = (mae.ViTMAEAttention,)


class ReducedDinov2Layer(ReducedLayer, dinov2.Dinov2Layer):
    """DINOv2's layer, reduced."""

    parts = DINO
    attentions = (dinov2.Dinov2Attention,)


class ReducedDinov2WithRegistersLayer(ReducedLayer, dinov2_registers.Dinov2WithRegistersLayer):
    """The layer of DINOv2 with registers, reduced."""

    parts = DINO
    attentions = (dinov2_registers.Dinov2WithRegistersAttention,)


class ReducedDINOv3ViTLayer(ReducedLayer, dinov3.DINOv3ViTLayer):
    """DINOv3's layer, reduced; every layer is given the cosines and sines of all patches."""

    parts = DINO
    attentions = (dinov3.DINOv3ViTAttention,)

    def forward(
        self,
        hidden_states: Any,
        attention_mask: Tensor | None = None,
        position_embeddings: Any = None,
        **arguments: Any,
    ) -> Any:
        return super().forward(
            hidden_states, attention_mask, position_embeddings=position_embeddings, **arguments
        )

    def rope(self, arguments: dict[str, Any]) -> tuple[Tensor, ...]:
        return tuple(arguments["position_embeddings"])

    def with_rope(self, arguments: dict[str, Any], rope: tuple[Tensor, ...]) -> dict[str, Any]:
        return arguments | {"position_embeddings": rope}

    def trial(self, x: Tensor) -> dict[str, Any]:
        # cosine and sine of one angle for all
        ones = x.new_ones(x.shape[1] - 1, self.attention.head_dim)
        return {"attention_mask": None, "position_embeddings": (0.6 * ones, 0.8 * ones)}


class ReducedCLIPLayer(ReducedLayer, clip.CLIPEncoderLayer):
    """CLIP's layer, reduced."""

    parts = CLIP
    attentions = (clip.CLIPAttention,)


class ReducedSiglipLayer(ReducedLayer, siglip.SiglipEncoderLayer):
    """SigLIP's layer, reduced."""

    parts = CLIP
    attentions = (siglip.SiglipAttention,)


LAYERS = (
    ReducedViTLayer,
    ReducedDeiTLayer,
    ReducedViTMAELayer,
    ReducedDinov2Layer,
    ReducedDinov2WithRegistersLayer,
    ReducedDINOv3ViTLayer,
    ReducedCLIPLayer,
    ReducedSiglipLayer,
)
