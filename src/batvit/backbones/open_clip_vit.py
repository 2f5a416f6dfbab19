"""open_clip's own Vision Transformers, alone or as the image tower of a model with texts."""

from typing import Any, ClassVar

from open_clip.coca_model import CoCa
from open_clip.model import CLIP, CustomTextCLIP
from open_clip.timm_model import TimmModel
from open_clip.transformer import ResidualAttentionBlock, Transformer, VisionTransformer
from torch import Tensor, nn

from batvit.backbones.adapter import Adapter, Anatomy
from batvit.backbones.torch_multihead import MultiheadBlock
from batvit.config import BATConfig
from batvit.reduction.block import Parts, refuse_mask
from batvit.reduction.grid import WithGrid, become_with_grid, become_without_grid
from batvit.reduction.tokens import Tokens
from batvit.reduction.wrapped import is_made_from


class ReducedResidualAttentionBlock(MultiheadBlock, ResidualAttentionBlock):  # type: ignore[misc]
    """open_clip's block, reduced."""

    parts = Parts("ln_1", "attn", ("ls_1",), "ln_2", "mlp", ("ls_2",))

    def forward(
        self,
        q_x: Tensor | Tokens,
        k_x: Tensor | None = None,
        v_x: Tensor | None = None,
        attn_mask: Tensor | None = None,
        output_form: str | None = None,
    ) -> Any:
        """Do as the block's own."""
        refuse_mask(attn_mask)
        if k_x is not None or v_x is not None:
            raise ValueError(
                "a reduced block attends to its own tokens only, got k_x or v_x; "
                "batvit.unpatch the model"
            )
        return self.run(q_x, output_form=output_form)


class ReducedTransformer(WithGrid, Transformer):  # type: ignore[misc]
    """open_clip's stack of blocks, reduced."""

    blocks_name = "resblocks"


class OpenClipViT(Adapter):
    """open_clip's VisionTransformer, and CLIP, CustomTextCLIP and CoCa, that hold one.

    Their text towers stay as they are.
    """

    library = "open_clip"
    families: ClassVar[dict[str, str]] = {
        "image tower": "open_clip.transformer.VisionTransformer",
        "CLIP": "ViT-B-32",
        "CoCa": "coca_ViT-B-32",
    }
    blocks = (ReducedResidualAttentionBlock,)

    def matches(self, model: nn.Module) -> bool:
        known = (VisionTransformer, TimmModel, CLIP, CustomTextCLIP, CoCa)
        return any(is_made_from(type(model), own) for own in known)

    def anatomy(self, model: nn.Module, image_size: tuple[int, int] | None = None) -> Anatomy:
        tower = _tower(model)
        height, width = tower.image_size
        if image_size is not None and tuple(image_size) != (height, width):
            raise ValueError(
                f"this model takes images of {height} x {width}, "
                f"got {image_size[0]} x {image_size[1]}; create it with force_image_size="
            )
        return Anatomy(
            tower=tower,
            stem=tower.conv1,
            blocks=tuple(tower.transformer.resblocks),
            image_size=(height, width),
            grid=tuple(tower.grid_size),
            width=tower.transformer.width,
            prefix=1,
            class_token=True,
            reads_patches=True,
        )

    def patched(self, model: nn.Module, config: BATConfig) -> None:
        transformer = _tower(model).transformer
        if is_made_from(type(transformer), Transformer):
            become_with_grid(transformer, ReducedTransformer)

    def unpatched(self, model: nn.Module) -> None:
        become_without_grid(_tower(model).transformer)


def _tower(model: Any) -> Any:
    """Return the part of the model that takes images.

    Raises:
        TypeError: if it is not open_clip's own Vision Transformer.
    """
    if isinstance(model, VisionTransformer | TimmModel):
        tower: Any = model
        name = "model"
    else:
        tower = model.visual
        name = "model.visual"
    if isinstance(tower, TimmModel):
        # open_clip is used without timm, too
        from batvit.backbones import timm_eva, timm_vit

        trunk: Any = tower.trunk
        if any(adapter.matches(trunk) for adapter in (timm_vit.ADAPTER, timm_eva.ADAPTER)):
            raise TypeError(
                f"the image tower is a model of timm in open_clip's TimmModel; patch {name}.trunk"
            )
        raise TypeError(
            f"the image tower is timm's {type(trunk).__name__} in open_clip's TimmModel, whose "
            "tokens batvit cannot reduce; batvit.supported() lists what can be reduced"
        )
    if not is_made_from(type(tower), VisionTransformer):
        raise TypeError(
            f"the image tower is open_clip's {type(tower).__name__}, "
            "and batvit knows its VisionTransformer"
        )
    if not tower.transformer.batch_first:
        raise TypeError(
            "the blocks of this image tower take tokens before images; "
            "batvit knows those with batch_first=True"
        )
    return tower


ADAPTER = OpenClipViT()
