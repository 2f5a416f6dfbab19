"""Where the layers are in a model of transformers, and how its hidden states become whole again."""

from inspect import signature
from typing import Any, ClassVar

from torch import nn
from transformers import PreTrainedModel
from transformers.models.beit.modeling_beit import BeitPreTrainedModel

from batvit.backbones.adapter import Adapter, Anatomy
from batvit.backbones.transformers_blocks import LAYERS
from batvit.backbones.transformers_common import refuse_kernel
from batvit.config import BATConfig
from batvit.reduction.grid import give_grids
from batvit.reduction.wrapped import unwrapped

OWN_CLASSES = tuple(reduced.own_class() for reduced in LAYERS)
INTERPOLATE = "interpolate_pos_encoding"
SPECIAL_TOKENS = ("cls_token", "class_embedding", "distillation_token")


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
        if not isinstance(model, PreTrainedModel):
            return False
        # BEiT is refused with a reason of its own
        return isinstance(model, BeitPreTrainedModel) or _layers(model) is not None

    def anatomy(self, model: nn.Module, image_size: tuple[int, int] | None = None) -> Anatomy:
        layers = _layers(model)
        if layers is None:
            raise TypeError(
                f"cannot reduce the tokens of transformers' {type(model).__name__}: its relative "
                "position bias is a table over pairs of patches, where merged tokens have no "
                "place; batvit.supported() lists what can be reduced"
            )
        owner, blocks = layers
        config = owner.config
        own_size = _pair(config.image_size)
        size = image_size or own_size
        patch = _pair(config.patch_size)
        grid = (size[0] // patch[0], size[1] // patch[1])
        tower = model if _takes_images(model) and not hasattr(model, "decoder") else owner
        arguments = {}
        if size != own_size and INTERPOLATE in signature(tower.forward).parameters:
            arguments[INTERPOLATE] = True
        special = [name for name in SPECIAL_TOKENS if _has(owner.embeddings, name)]
        patches = grid[0] * grid[1]
        visible = int(patches * (1 - getattr(config, "mask_ratio", 0.0)))
        return Anatomy(
            tower=tower,
            stem=owner.embeddings,
            blocks=blocks,
            image_size=size,
            grid=grid,
            width=config.hidden_size,
            prefix=len(special) + getattr(config, "num_register_tokens", 0),
            class_token=len(special) > 0,
            reads_patches=True,
            arguments=arguments,
            left_out=patches - visible,
        )

    def check(self, model: nn.Module, config: BATConfig) -> None:
        if config.size_aware:
            refuse_kernel(_owner(model).config._attn_implementation, "size_aware")

    def patched(self, model: nn.Module, config: BATConfig) -> None:
        _recorder(model).register_forward_hook(give_grids)
        # save_pretrained saves it with all the rest, and batvit.load finds it again
        _owner(model).config.batvit = config.to_dict()

    def unpatched(self, model: nn.Module) -> None:
        hooks = _recorder(model)._forward_hooks
        for key, hook in list(hooks.items()):
            if hook is give_grids:
                del hooks[key]
                # a model that is not patched may share the configuration of one that is
                vars(_owner(model).config).pop("batvit", None)


def _layers(model: nn.Module) -> tuple[Any, tuple[nn.Module, ...]] | None:
    """Return the part of a model that takes images, and its layers; None if there is none.

    Texts may go through layers of the same class.
    """
    for owner in model.modules():
        if not (_takes_images(owner) and hasattr(owner, "embeddings")):
            continue
        for part in owner.modules():
            if isinstance(part, nn.ModuleList) and len(part) and _is_layer(part[0]):
                return owner, tuple(part)
    return None


def _is_layer(part: nn.Module) -> bool:
    return isinstance(unwrapped(part), OWN_CLASSES)


def _owner(model: nn.Module) -> Any:
    """Return the part of a model that takes images."""
    layers = _layers(model)
    return model if layers is None else layers[0]


def _recorder(model: nn.Module) -> nn.Module:
    """Return the innermost model around the layers: it collects the hidden states."""
    layers = _layers(model)
    owner, blocks = (model, ()) if layers is None else layers
    innermost = owner
    for part in owner.modules():
        if isinstance(part, PreTrainedModel) and set(blocks) <= set(part.modules()):
            innermost = part
    return innermost


def _takes_images(model: nn.Module) -> bool:
    return isinstance(model, PreTrainedModel) and model.main_input_name == "pixel_values"


def _has(module: nn.Module, name: str) -> bool:
    return getattr(module, name, None) is not None


def _pair(size: Any) -> tuple[int, int]:
    return (size, size) if isinstance(size, int) else (size[0], size[1])


ADAPTER = Transformers()
