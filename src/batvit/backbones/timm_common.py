"""What timm's Vision Transformers have in common: attention with two norms, a patch embedding, a list of blocks."""

from typing import Any, ClassVar

import torch
from timm.layers import use_reentrant_ckpt
from torch import Tensor, nn

from batvit.backbones.adapter import Adapter, Anatomy, last_output_form
from batvit.backbones.attention_capture import AttentionCapture
from batvit.config.config import BATConfig
from batvit.reduction.grid import WithGrid
from batvit.reduction.site import config_of


class NormCapture(AttentionCapture):
    """Hears what comes out of the two norms that every attention of timm has, if only as identities."""

    def q_norm(self, queries: Tensor) -> Tensor:
        self.queries = self.attention.q_norm(queries)
        return self.queries

    def k_norm(self, keys: Tensor) -> Tensor:
        self.keys = self.attention.k_norm(keys)
        return self.keys


def reentrant(block: nn.Module) -> bool:
    """Whether a block in training runs inside timm's re-entrant checkpointing, where gradients are off at first."""
    return block.training and not torch.is_grad_enabled() and use_reentrant_ckpt()


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
        reads_prefix_only=model.global_pool == "token",
    )


class WithHead(WithGrid):
    """One of timm's models with reduced blocks: the last of them gives what the head reads."""

    adapter: ClassVar[Adapter]
    """that knows this class; set by the adapter itself"""

    def reset_classifier(self, *args: Any, **arguments: Any) -> None:
        """As the model's own; another pooling may read other tokens."""
        super().reset_classifier(*args, **arguments)  # type: ignore[misc]
        config = config_of(self)
        if config is not None:
            anatomy = self.adapter.anatomy(self)
            known: Any = anatomy.blocks[-1]
            known.output_form = last_output_form(anatomy, config)


class TimmAdapter(Adapter):
    """A class of timm's models, and what it becomes so that its feature maps are whole."""

    library = "timm"
    models: ClassVar[tuple[type[WithHead], ...]]

    def __init__(self) -> None:
        for kind in self.models:
            kind.adapter = self

    def matches(self, model: nn.Module) -> bool:
        return type(model) in self.models or type(model) in self._dense()

    def patched(self, model: nn.Module, config: BATConfig) -> None:
        model.__class__ = self._dense().get(type(model), type(model))
        known: Any = model
        architecture = getattr(known, "pretrained_cfg", {}).get("architecture") or ""
        if architecture.startswith("bat_") and hasattr(known, "_model_args"):
            # by these timm makes what it saved once more
            given = {
                name: value
                for name, value in known._model_args.items()
                if name not in (*config.to_dict(), "mode")
            }
            known._model_args = given | {"reduction": config.to_dict()}

    def unpatched(self, model: nn.Module) -> None:
        model.__class__ = type(model).__bases__[-1] if type(model) in self.models else type(model)

    def _dense(self) -> dict[type, type[WithHead]]:
        return {reduced.__bases__[-1]: reduced for reduced in self.models}
