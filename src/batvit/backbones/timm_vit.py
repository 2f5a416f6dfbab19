"""timm's Vision Transformers with absolute positions."""

from typing import Any, ClassVar

from timm.layers.attention import Attention
from timm.models.deit import VisionTransformerDistilled
from timm.models.vision_transformer import Block, VisionTransformer
from torch import Tensor, nn

from batvit.backbones.anatomy import Adapter, Anatomy
from batvit.backbones.block import Parts, ReducedBlock, refuse_mask
from batvit.backbones.ear import Ear
from batvit.backbones.grid import WithGrid
from batvit.backbones.site import Heard, Tokens


class NormEar(Ear):
    """Hears what comes out of the two norms that every attention of timm has, if only as identities."""

    def q_norm(self, queries: Tensor) -> Tensor:
        self.queries = self.attention.q_norm(queries)
        return self.queries

    def k_norm(self, keys: Tensor) -> Tensor:
        self.keys = self.attention.k_norm(keys)
        return self.keys


class ReducedTimmBlock(ReducedBlock, Block):
    """timm's block, reduced."""

    parts = Parts("norm1", "attn", ("ls1", "drop_path1"), "norm2", "mlp", ("ls2", "drop_path2"))
    attentions = (Attention,)
    mask = "attn_mask"

    def forward(
        self, x: Tensor | Tokens, attn_mask: Tensor | None = None, is_causal: bool = False, leave_as: str | None = None
    ) -> Any:
        """As the block's own."""
        refuse_mask(attn_mask, is_causal)
        return self.run(x, leave_as=leave_as)

    def attend(self, x: Tensor, bias: Tensor | None, arguments: dict[str, Any]) -> tuple[Tensor, Heard]:
        attention: Any = self.attn
        hear = NormEar(attention)
        attended = hear(x, attn_mask=bias)
        return attended, Heard(hear.queries, hear.keys, attention.scale)


class ReducedVisionTransformer(WithGrid, VisionTransformer):
    """timm's Vision Transformer with reduced blocks."""


class ReducedVisionTransformerDistilled(WithGrid, VisionTransformerDistilled):
    """timm's distilled DeiT with reduced blocks."""


def timm_anatomy(model: Any, image_size: tuple[int, int] | None, *, class_token: bool) -> Anatomy:
    """What timm's Vision Transformers have in common."""
    embed = model.patch_embed
    size = tuple(image_size or embed.img_size)
    if embed.strict_img_size and size != tuple(embed.img_size):
        raise ValueError(
            f"this model takes images of {embed.img_size[0]} x {embed.img_size[1]}, got {size[0]} x {size[1]}; "
            "call its set_input_size, or create it with dynamic_img_size=True"
        )
    return Anatomy(
        tower=model,
        stem=embed,
        blocks=tuple(model.blocks),
        image_size=(size[0], size[1]),
        grid=tuple(embed.dynamic_feat_size(size)),
        width=model.embed_dim,
        prefix=model.num_prefix_tokens,
        class_token=class_token,
        reads_patches=model.global_pool != "token",
    )


class TimmAdapter(Adapter):
    """A class of timm's models, and what it becomes so that its feature maps are whole."""

    library = "timm"
    models: ClassVar[tuple[type[WithGrid], ...]]

    def matches(self, model: nn.Module) -> bool:
        return type(model) in self.models or type(model) in self._dense()

    def patched(self, model: nn.Module) -> None:
        model.__class__ = self._dense().get(type(model), type(model))

    def unpatched(self, model: nn.Module) -> None:
        model.__class__ = type(model).__bases__[-1] if type(model) in self.models else type(model)

    def _dense(self) -> dict[type, type[WithGrid]]:
        return {reduced.__bases__[-1]: reduced for reduced in self.models}


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
        known: Any = model
        return timm_anatomy(model, image_size, class_token=known.has_class_token)


ADAPTER = TimmViT()
