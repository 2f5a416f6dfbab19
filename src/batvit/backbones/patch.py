"""The two verbs: patch and unpatch, for every library that has an adapter."""

import importlib
import sys
from types import ModuleType
from typing import Any, TypeVar

from torch import nn

from batvit.backbones.site import Geometry, Reduce
from batvit.config import DEFAULT_MODE, BATConfig, Counts

# library -> the one file that knows it, imported when the library already is
ADAPTERS = {"timm": "batvit.backbones.timm_vit"}


Model = TypeVar("Model", bound=nn.Module)


def patch(model: Model, config: BATConfig | None = None, *, mode: str | None = None, **fields: Any) -> Model:
    """Make a Vision Transformer run with fewer tokens, in place.

    Weights, state-dict keys and modules stay as they are; a second patch replaces the first.

    Args:
        model: a model of :func:`supported`; patch it before ``torch.compile`` or a parallel wrapper, and after its head
            is what you want (``reset_classifier``): how it pools decides what the last block gives.
        config: the whole configuration. Or leave it out and give:
        mode: a preset, ``training_free`` (default) or ``paper``; and any
        fields: of :class:`BATConfig`, such as ``keep_rate=0.7`` or ``blocks=(3, 6, 9)``, counted from 0.

    Returns:
        The same model.

    Raises:
        TypeError: if the model is not supported, naming what was found and what is.
        ValueError: if the configuration does not fit the model. In both cases the model is untouched.
    """
    if config is None:
        config = BATConfig.preset(mode or DEFAULT_MODE, **fields)
    elif not isinstance(config, BATConfig):
        raise TypeError(f"config must be a BATConfig, got {type(config).__name__}; use BATConfig.from_dict or .load")
    elif mode is not None:
        raise ValueError(f"give config or mode, not both; got mode={mode!r}")
    else:
        config = config.with_fields(**fields)
    adapter = _adapter(model)
    if getattr(model, "_compiled_call_impl", None) is not None:
        raise TypeError("this model is compiled in place; call batvit.patch first, then its compile()")
    adapter.check(model)
    geometry = adapter.geometry(model)
    config.schedule(depth=geometry.depth, patches=geometry.patches)
    before = config_of(model)
    unpatch(model)
    try:
        adapter.patch(model, config)
    except BaseException:
        adapter.unpatch(model)
        if before is not None:
            adapter.patch(model, before)
        raise
    return model


def unpatch(model: Model) -> Model:
    """Undo :func:`patch`, bit for bit. A model that is not patched is left alone."""
    _adapter(model).unpatch(model)
    return model


def supported() -> dict[str, str]:
    """Families that :func:`patch` takes, each with a model name as an example."""
    return {
        family: example
        for adapter in ADAPTERS.values()
        for family, example in importlib.import_module(adapter).FAMILIES.items()
    }


def config_of(model: nn.Module) -> BATConfig | None:
    """The configuration a model is patched with, or None."""
    sites = reductions(model)
    return next(iter(sites.values())).config if sites else None


def reductions(model: nn.Module) -> dict[int, Reduce]:
    """The reductions of a patched model by block number, counted from 0."""
    sites = [module for module in model.modules() if isinstance(module, Reduce)]
    return {site.block: site for site in sites}


def geometry(model: nn.Module, image_size: tuple[int, int] | None = None) -> Geometry:
    """Depth, patch grid and prefix tokens of a supported model, for an image of (height, width) pixels.

    Raises:
        TypeError: if the model is not supported.
        ValueError: if it takes images of one size only, and not of this.
    """
    shape: Geometry = _adapter(model).geometry(model, image_size)
    return shape


def blocks(model: nn.Module) -> list[nn.Module]:
    """The transformer blocks of a supported model, in order."""
    return list(_adapter(model).blocks(model))


def stem(model: nn.Module) -> nn.Module:
    """The module of a supported model that takes the images."""
    first: nn.Module = _adapter(model).stem(model)
    return first


def schedule(model: nn.Module, image_size: tuple[int, int] | None = None) -> tuple[Counts, ...]:
    """The counts at each site of a patched model; empty if it is not patched."""
    config, shape = config_of(model), geometry(model, image_size)
    return () if config is None else config.schedule(depth=shape.depth, patches=shape.patches)


def _adapter(model: nn.Module) -> ModuleType:
    if not isinstance(model, nn.Module):
        raise TypeError(f"expected a torch.nn.Module, got {type(model).__name__}")
    if hasattr(model, "_orig_mod"):
        raise TypeError("this is a compiled model; call batvit on the model first, then torch.compile it")
    for library, name in ADAPTERS.items():
        if library in sys.modules:
            adapter = importlib.import_module(name)
            if adapter.matches(model):
                return adapter
    kind = type(model)
    raise TypeError(
        f"cannot reduce the tokens of {kind.__module__}.{kind.__qualname__}; supported are: {', '.join(supported())} "
        "(batvit.supported() has an example of each)"
    )
