"""Where the layers are in a model of transformers, and how its hidden states become whole again."""

from inspect import signature
from typing import Any, ClassVar

from torch import nn
from transformers import PreTrainedModel
from transformers.models.beit.modeling_beit import BeitPreTrainedModel

from batvit.backbones.adapter import Adapter, Anatomy
from batvit.backbones.transformers_blocks import LAYERS
from batvit.backbones.transformers_common import refuse_kernel
from batvit.config.config import BATConfig
from batvit.reduction.grid import give_grids

INTERPOLATE = "interpolate_pos_encoding"
SPECIAL = ("cls_token", "class_embedding", "distillation_token")


class Transformers(Adapter):
    """Any model that holds one of these towers: alone, under a head, in CLIP, in a pipeline."""

    library = "transformers"
    families: ClassVar[dict[str, str]] = {
        "ViT": "ViTForImageClassification",
        "DeiT": "DeiTForImageClassificationWithTeacher",
        "DINOv2": "Dinov2Model",
        "DINOv2 with registers": "Dinov2WithRegistersModel",
        "DINOv3": "DINOv3ViTModel",
        "CLIP": "CLIPModel",
        "SigLIP, SigLIP 2 of fixed resolution": "SiglipModel",
        "ViT-MAE encoder": "ViTMAEModel",
    }
    blocks = LAYERS

    def matches(self, model: nn.Module) -> bool:
        return isinstance(model, BeitPreTrainedModel) or (
            isinstance(model, PreTrainedModel) and _layers(model) is not None
        )

    def anatomy(self, model: nn.Module, image_size: tuple[int, int] | None = None) -> Anatomy:
        found = _layers(model)
        if found is None:
            raise TypeError(
                f"cannot reduce the tokens of transformers' {type(model).__name__}: its relative position bias is a table over "
                "pairs of patches, where merged tokens have no place; batvit.supported() lists what can be reduced"
            )
        owner, blocks = found
        embeddings, config = owner.embeddings, owner.config
        patch, size = _pair(config.patch_size), image_size or _pair(config.image_size)
        special = sum(getattr(embeddings, name, None) is not None for name in SPECIAL)
        grid = (size[0] // patch[0], size[1] // patch[1])
        tower = model if _takes_images(model) and not hasattr(model, "decoder") else owner
        interpolates = (
            size != _pair(config.image_size) and INTERPOLATE in signature(tower.forward).parameters
        )
        return Anatomy(
            tower=tower,
            stem=embeddings,
            blocks=blocks,
            image_size=size,
            grid=grid,
            width=config.hidden_size,
            prefix=special + getattr(config, "num_register_tokens", 0),
            class_token=special > 0,
            reads_patches=True,
            arguments={INTERPOLATE: True} if interpolates else {},
            left_out=grid[0] * grid[1]
            - int(grid[0] * grid[1] * (1 - getattr(config, "mask_ratio", 0.0))),
        )

    def check(self, model: nn.Module, config: BATConfig) -> None:
        if config.size_aware:
            refuse_kernel(_owner(model).config._attn_implementation, "size_aware")

    def patched(self, model: nn.Module, config: BATConfig) -> None:
        _recorder(model).register_forward_hook(give_grids)
        # saved by save_pretrained with all the rest, and found again by batvit.load
        _owner(model).config.batvit = config.to_dict()

    def unpatched(self, model: nn.Module) -> None:
        hooks = _recorder(model)._forward_hooks
        for key in [key for key, hook in hooks.items() if hook is give_grids]:
            del hooks[key]
            # a model that is not patched may share the configuration of one that is
            vars(_owner(model).config).pop("batvit", None)


def _layers(model: nn.Module) -> tuple[Any, tuple[nn.Module, ...]] | None:
    """The part of a model that takes images, and its layers; texts may go through layers of the same class."""
    for owner in model.modules():
        if _takes_images(owner) and hasattr(owner, "embeddings"):
            for part in owner.modules():
                if isinstance(part, nn.ModuleList) and len(part) and isinstance(part[0], KNOWN):
                    return owner, tuple(part)
    return None


def _owner(model: nn.Module) -> Any:
    return (_layers(model) or (model,))[0]


def _recorder(model: nn.Module) -> nn.Module:
    """The innermost model around the layers: it collects the hidden states."""
    owner, blocks = _layers(model) or (model, ())
    return [
        part
        for part in owner.modules()
        if isinstance(part, PreTrainedModel) and {*blocks} <= {*part.modules()}
    ][-1]


def _takes_images(model: nn.Module) -> bool:
    return isinstance(model, PreTrainedModel) and model.main_input_name == "pixel_values"


def _pair(size: Any) -> tuple[int, int]:
    return (size, size) if isinstance(size, int) else (size[0], size[1])


KNOWN = tuple(reduced.__bases__[-1] for reduced in LAYERS)
ADAPTER = Transformers()
