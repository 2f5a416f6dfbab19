"""torchvision's Vision Transformers."""

from typing import Any, ClassVar

from torch import Tensor, nn
from torchvision.models.vision_transformer import EncoderBlock, VisionTransformer

from batvit.backbones.adapter import Adapter, Anatomy
from batvit.backbones.torch_multihead import MultiheadBlock
from batvit.reduction.block import Parts
from batvit.reduction.tokens import Tokens
from batvit.reduction.wrapped import is_made_from


class ReducedEncoderBlock(MultiheadBlock, EncoderBlock):  # type: ignore[misc]
    """torchvision's block, reduced."""

    parts = Parts("ln_1", "self_attention", ("dropout",), "ln_2", "mlp", ())

    def forward(
        self,
        input: Tensor | Tokens,  # noqa: A002
        output_form: str | None = None,
    ) -> Any:
        """Do as the block's own."""
        return self.run(input, output_form=output_form)


class TorchvisionViT(Adapter):
    """torchvision's VisionTransformer, with a patch embedding or a convolutional stem."""

    library = "torchvision"
    families: ClassVar[dict[str, str]] = {"ViT": "vit_b_16"}
    blocks = (ReducedEncoderBlock,)

    def matches(self, model: nn.Module) -> bool:
        return is_made_from(type(model), VisionTransformer)

    def anatomy(self, model: nn.Module, image_size: tuple[int, int] | None = None) -> Anatomy:
        vit: Any = model
        pixels = vit.image_size
        if image_size is not None and tuple(image_size) != (pixels, pixels):
            raise ValueError(
                f"this model takes images of {pixels} x {pixels}, "
                f"got {image_size[0]} x {image_size[1]}; create it with image_size=, and its "
                "positions with torchvision.models.vision_transformer.interpolate_embeddings"
            )
        side = pixels // vit.patch_size
        return Anatomy(
            tower=model,
            stem=vit.conv_proj,
            blocks=tuple(vit.encoder.layers),
            image_size=(pixels, pixels),
            grid=(side, side),
            width=vit.hidden_dim,
            prefix=1,
            class_token=True,
            reads_patches=False,
            reads_prefix_only=True,
        )


ADAPTER = TorchvisionViT()
