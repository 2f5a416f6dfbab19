"""timm's models with fewer tokens, in timm's registry.

>>> model = timm.create_model("bat_deit_small_patch16_224", keep_rate=0.7)

Importing this file registers ``bat_<name>`` for each DeiT, distilled DeiT, DeiT-III, AugReg ViT,
DINOv2 and LV-ViT, with the tags and weights of ``<name>``. ``mode`` and the fields of
:class:`batvit.BATConfig` are for :func:`batvit.patch`, all other arguments are timm's.

timm's own scripts run by ``python -m batvit.models train.py DATA --model bat_...``. What timm saves
of a model that was patched again has that configuration as ``reduction``, also after
:func:`batvit.unpatch`.
"""

import dataclasses
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import timm
from timm.models import (
    generate_default_cfgs,
    get_arch_pretrained_cfgs,
    is_model,
    model_entrypoint,
    register_model,
)
from timm.models._features import FeatureGetterNet
from torch import nn

# it registers LV-ViT, of which a family is made here
import batvit.models.lvvit  # noqa: F401
from batvit.backbones.patch import patch
from batvit.config.config import BATConfig
from batvit.config.presets import DEFAULT_MODE

FAMILIES = ("deit*", "vit_*.augreg*", "vit_*_dinov2", "lvvit*")
MODULES = ("deit", "vision_transformer", "lvvit")
FIELDS = tuple(field.name for field in dataclasses.fields(BATConfig))


def _dense_names() -> list[str]:
    """Return the names, without tags, of the models of these families."""
    names: list[str] = []
    for tagged in timm.list_models(FAMILIES, module=MODULES, include_tags=True):
        name = tagged.partition(".")[0]
        if name not in names:
            names.append(name)
    return names


def _reduced_cfgs(names: Sequence[str]) -> dict[str, Any]:
    """Return timm's configurations of the weights, by the names of the reduced models."""
    cfgs: dict[str, Any] = {}
    for name in names:
        for tagged, cfg in get_arch_pretrained_cfgs(name).items():
            cfgs[f"bat_{tagged}"] = cfg
    return cfgs


DENSE = _dense_names()
# where timm looks for the weights of what this file registers
default_cfgs = generate_default_cfgs(_reduced_cfgs(DENSE))
# timm adds what is registered
__all__: list[str] = []


def _create(
    dense: str,
    pretrained: bool,
    mode: str | None,
    pretrained_cfg_overlay: dict[str, Any] | None,
    **options: Any,
) -> nn.Module:
    """Make the dense model and patch it.

    Args:
        dense: its name.
        pretrained, pretrained_cfg_overlay: as timm gives them to an entry point.
        mode: a preset, or None.
        options: fields of :class:`BATConfig`, ``reduction`` as timm saved it, and timm's own.
    """
    config = _config(mode, options)
    # what timm saves of a model names its entry point
    overlay = {"architecture": f"bat_{dense}"} | (pretrained_cfg_overlay or {})
    build: Callable[..., nn.Module] = partial(
        model_entrypoint(dense), pretrained, pretrained_cfg_overlay=overlay
    )
    if not options.get("features_only"):
        return patch(build(**options), config)
    if options.get("feature_cls", "getter") != "getter":
        raise ValueError(
            "feature maps of the full grid come from forward_intermediates: "
            f"feature_cls must be 'getter', got {options['feature_cls']!r}; leave it out"
        )
    return build(**options | {"feature_cls": partial(_features, config)})


def _config(mode: str | None, options: dict[str, Any]) -> BATConfig:
    """Take the configuration out of the options.

    What timm saved counts where nothing else is given.
    """
    fields = {name: options.pop(name) for name in FIELDS if name in options}
    saved = options.pop("reduction", None)
    if saved is None or fields or mode:
        return BATConfig.preset(mode or DEFAULT_MODE, **fields)
    return BATConfig.from_dict(saved)


def _features(config: BATConfig, model: nn.Module, **options: Any) -> nn.Module:
    """Patch a model before timm cuts off the blocks that no feature needs.

    The default sites are those of the whole model.
    """
    return FeatureGetterNet(patch(model, config), **options)


def _entry_point(dense: str) -> Callable[..., nn.Module]:
    """Return the function that timm calls to make the model."""

    def create(
        pretrained: bool = False,
        *,
        mode: str | None = None,
        pretrained_cfg_overlay: dict[str, Any] | None = None,
        **options: Any,
    ) -> nn.Module:
        return _create(dense, pretrained, mode, pretrained_cfg_overlay, **options)

    create.__name__ = f"bat_{dense}"
    create.__qualname__ = create.__name__
    create.__doc__ = f"``{dense}`` with fewer tokens."
    return create


# a second import finds what the first one registered
for _name in DENSE:
    _new = f"bat_{_name}"
    if is_model(_new):
        globals()[_new] = model_entrypoint(_new)
    else:
        globals()[_new] = register_model(_entry_point(_name))
