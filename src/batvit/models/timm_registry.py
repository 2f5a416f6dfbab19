"""timm's models with fewer tokens, in timm's registry: ``timm.create_model("bat_deit_small_patch16_224", keep_rate=0.7)``.

Importing this file registers ``bat_<name>`` for each DeiT, distilled DeiT, DeiT-III, AugReg ViT, DINOv2 and LV-ViT, with
the tags and weights of ``<name>``. ``mode`` and the fields of :class:`batvit.BATConfig` are for :func:`batvit.patch`, all
other arguments are timm's. Where a model was patched again, what timm saves of it has that configuration as ``reduction``,
also after :func:`batvit.unpatch`. timm's own scripts run by ``python -m batvit.models train.py DATA --model bat_...``.
"""

from collections.abc import Callable
from dataclasses import fields
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

import batvit.models.lvvit
from batvit.backbones.patch import patch
from batvit.config.config import BATConfig
from batvit.config.presets import DEFAULT_MODE

FAMILIES = ("deit*", "vit_*.augreg*", "vit_*_dinov2", "lvvit*")
MODULES = ("deit", "vision_transformer", "lvvit")
FIELDS = tuple(field.name for field in fields(BATConfig))

DENSE = tuple(
    dict.fromkeys(
        name.partition(".")[0]
        for name in timm.list_models(FAMILIES, module=MODULES, include_tags=True)
    )
)
default_cfgs = generate_default_cfgs(
    {
        f"bat_{tagged}": cfg
        for name in DENSE
        for tagged, cfg in get_arch_pretrained_cfgs(name).items()
    }
)
__all__: list[str] = []  # timm adds what is registered


def _create(
    dense: str,
    pretrained: bool,
    mode: str | None,
    pretrained_cfg_overlay: dict[str, Any] | None,
    **options: Any,
) -> nn.Module:
    given, saved = (
        {name: options.pop(name) for name in FIELDS if name in options},
        options.pop("reduction", None),
    )
    anew = saved is None or given or mode
    config = BATConfig.preset(mode or DEFAULT_MODE, **given) if anew else BATConfig.from_dict(saved)
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


def _features(config: BATConfig, model: nn.Module, **options: Any) -> nn.Module:
    """Patched before timm cuts off the blocks that no feature needs: the default sites are those of the whole model."""
    return FeatureGetterNet(patch(model, config), **options)


def _entry_point(dense: str) -> Callable[..., nn.Module]:
    def create(
        pretrained: bool = False,
        *,
        mode: str | None = None,
        pretrained_cfg_overlay: dict[str, Any] | None = None,
        **options: Any,
    ) -> nn.Module:
        return _create(dense, pretrained, mode, pretrained_cfg_overlay, **options)

    create.__name__ = create.__qualname__ = f"bat_{dense}"
    create.__doc__ = f"``{dense}`` with fewer tokens."
    return create


for _name in DENSE:
    _new = f"bat_{_name}"
    globals()[_new] = (
        model_entrypoint(_new) if is_model(_new) else register_model(_entry_point(_name))
    )
