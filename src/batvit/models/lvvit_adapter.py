"""LV-ViT: timm's blocks behind a convolutional stem, with a second head that reads all patches."""

from dataclasses import replace
from typing import Any, ClassVar

from torch import nn

from batvit.backbones.adapter import Anatomy
from batvit.backbones.timm_common import TimmAdapter, WithHead, timm_anatomy
from batvit.backbones.timm_vit import ReducedTimmBlock
from batvit.models.lvvit import LVViT


class ReducedLVViT(WithHead, LVViT):
    """LV-ViT with reduced blocks."""


class TimmLVViT(TimmAdapter):
    """The architecture that timm lacks, in its registry."""

    families: ClassVar[dict[str, str]] = {"LV-ViT": "lvvit_small_patch16_224"}
    blocks = (ReducedTimmBlock,)
    models = (ReducedLVViT,)

    def anatomy(self, model: nn.Module, image_size: tuple[int, int] | None = None) -> Anatomy:
        lvvit: Any = model
        anatomy = timm_anatomy(model, image_size, class_token=True)
        # the second head takes a maximum, which over groups is that over their patches; but labels
        # are for patches
        return replace(
            anatomy,
            reads_patches=lvvit.token_labeling or anatomy.reads_patches,
            reads_prefix_only=False,
        )


ADAPTER = TimmLVViT()
