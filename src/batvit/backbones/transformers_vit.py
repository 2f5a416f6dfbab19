"""transformers' Vision Transformers: whatever holds a tower that is known."""

from inspect import signature
from pathlib import Path
from typing import Any, ClassVar

import transformers
from torch import nn
from transformers import PreTrainedModel

from batvit.backbones.adapter import Adapter, Anatomy
from batvit.backbones.transformers_blocks import reduced_classes
from batvit.backbones.transformers_families import FAMILIES
from batvit.backbones.transformers_interface import refuse_kernel
from batvit.backbones.transformers_refusals import reason
from batvit.backbones.transformers_tower import Tower, takes_images_alone, tower_of
from batvit.config import BATConfig
from batvit.reduction.block import ReducedBlock
from batvit.reduction.grid import give_grids

INTERPOLATE = "interpolate_pos_encoding"
MODELS = Path(transformers.__file__).parent / "models"


class Transformers(Adapter):
    """Any model that holds one of these towers: alone, under a head, in CLIP, in a pipeline."""

    library = "transformers"
    families: ClassVar[dict[str, str]] = {
        family.name: family.example for family in FAMILIES if (MODELS / family.folder).is_dir()
    }
    blocks = ()

    def reduced_classes(self) -> tuple[type[ReducedBlock], ...]:
        return reduced_classes()

    def matches(self, model: nn.Module) -> bool:
        if not isinstance(model, PreTrainedModel):
            return False
        tower = tower_of(model)
        return tower is not None and reason(model, tower.owner.config) is None

    def refusal(self, model: nn.Module) -> str | None:
        tower = tower_of(model)
        return reason(model, None if tower is None else tower.owner.config)

    def anatomy(self, model: nn.Module, image_size: tuple[int, int] | None = None) -> Anatomy:
        tower = _tower(model)
        config = tower.owner.config
        own_size = _pair(config.image_size)
        size = image_size or own_size
        patch = _pair(config.patch_size)
        grid = (size[0] // patch[0], size[1] // patch[1])
        whole = model if takes_images_alone(model) else tower.owner
        arguments = {}
        if size != own_size and INTERPOLATE in signature(whole.forward).parameters:
            arguments[INTERPOLATE] = True
        suffix = getattr(config, "num_detection_tokens", 0)
        patches = grid[0] * grid[1]
        visible = int(patches * (1 - getattr(config, "mask_ratio", 0.0)))
        return Anatomy(
            tower=whole,
            stem=tower.stem,
            blocks=tower.layers,
            image_size=size,
            grid=grid,
            width=config.hidden_size,
            prefix=tower.class_tokens + tower.other_tokens + suffix,
            suffix=suffix,
            class_token=tower.class_tokens > 0,
            reads_patches=True,
            arguments=arguments,
            left_out=patches - visible,
        )

    def check(self, model: nn.Module, config: BATConfig) -> None:
        if config.size_aware:
            refuse_kernel(_tower(model).owner.config._attn_implementation, "size_aware")

    def patched(self, model: nn.Module, config: BATConfig) -> None:
        tower = _tower(model)
        tower.recorder.register_forward_hook(give_grids)
        # save_pretrained saves it with all the rest, and batvit.load finds it again
        tower.owner.config.batvit = config.to_dict()

    def unpatched(self, model: nn.Module) -> None:
        tower = _tower(model)
        hooks = tower.recorder._forward_hooks
        for key, hook in list(hooks.items()):
            if hook is give_grids:
                del hooks[key]
                # a model that is not patched may share the configuration of one that is
                vars(tower.owner.config).pop("batvit", None)


def _tower(model: nn.Module) -> Tower:
    """Return the tower of a model that matches."""
    tower = tower_of(model)
    assert tower is not None
    return tower


def _pair(size: Any) -> tuple[int, int]:
    return (size, size) if isinstance(size, int) else (size[0], size[1])


ADAPTER = Transformers()
