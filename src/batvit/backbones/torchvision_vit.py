"""torchvision's Vision Transformers."""

from typing import Any, ClassVar

from torch import Tensor, nn
from torchvision.models.vision_transformer import EncoderBlock, VisionTransformer

from batvit.backbones.adapter import Adapter, Anatomy
from batvit.backbones.torch_multihead import MultiheadBlock
from batvit.reduction.block import Parts
from batvit.reduction.tokens import Tokens


class ReducedEncoderBlock(MultiheadBlock, EncoderBlock):  # type: ignore[misc]
    """torchvision's block, reduced."""

    parts = Parts("ln_1", "self_attention", ("dropout",), "ln_2", "mlp", ())

    def forward(self, input: Tensor | Tokens, output_form: str | None = None) -> Any:
        """As the block's own."""
        return self.run(input, output_form=output_form)


class TorchvisionViT(Adapter):
    """torchvision's VisionTransformer, with a patch embedding or a convolutional stem."""

    library = "torchvision"
    families: ClassVar[dict[str, str]] = {"ViT": "vit_b_16"}
    blocks = (ReducedEncoderBlock,)

    def matches(self, model: nn.Module) -> bool:
        return type(model) is VisionTransformer

    def anatomy(self, model: nn.Module, image_size: tuple[int, int] | None = None) -> Anatomy:
        known: Any = model
        own = (known.image_size, known.image_size)
        size = tuple(image_size or own)
        if size != own:
            raise ValueError(
                f"this model takes images of {own[0]} x {own[1]}, got {size[0]} x {size[1]}; create it with "
                "image_size=, and its positions with torchvision.models.vision_transformer.interpolate_embeddings"
            )
        side = known.image_size // known.patch_size
        return Anatomy(
            tower=model,
            stem=known.conv_proj,
            blocks=tuple(known.encoder.layers),
            image_size=own,
            grid=(side, side),
            width=known.hidden_dim,
            prefix=1,
            class_token=True,
            reads_patches=False,
            reads_prefix_only=True,
        )


ADAPTER = TorchvisionViT()
