"""The two verbs: patch and unpatch, for every library that has an adapter."""

import importlib
import importlib.util
import sys
from collections.abc import Iterator
from typing import Any, NoReturn, TypeVar

from torch import nn

from batvit.backbones.anatomy import Adapter, Anatomy
from batvit.backbones.block import ReducedBlock, become_dense, become_reduced, prove
from batvit.backbones.site import Reduce
from batvit.config import BATConfig, Counts
from batvit.copies import light_copy
from batvit.plans import PLANS
from batvit.presets import DEFAULT_MODE

# library -> the files that know it, imported once the library is
BUILT_IN = {
    "timm": ("timm_vit", "timm_eva"),
    "batvit.models": ("timm_lvvit",),
    "transformers": ("transformers_vit",),
    "torchvision": ("torchvision_vit",),
    "open_clip": ("open_clip_vit",),
}
REGISTERED: list[Adapter] = []

Model = TypeVar("Model", bound=nn.Module)


def patch(model: Model, config: BATConfig | None = None, *, mode: str | None = None, **fields: Any) -> Model:
    """Make a Vision Transformer run with fewer tokens, in place.

    Weights, state-dict keys and modules stay as they are; a second patch replaces the first.

    Args:
        model: a model of :func:`supported`; patch it before ``torch.compile`` or a parallel wrapper, and after its head
            is what you want (``reset_classifier``): how it pools decides what the last block gives.
        config: the whole configuration. Or leave it out and give:
        mode: a preset, ``training_free`` (default), ``gradual`` or ``paper``; and any
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
    adapter = adapter_of(model)
    if getattr(model, "_compiled_call_impl", None) is not None:
        raise TypeError("this model is compiled in place; call batvit.patch first, then its compile()")
    anatomy = adapter.anatomy(model)
    classes = [_reduced_class(adapter, anatomy, i) for i in range(anatomy.depth)]
    for counts in config.schedule(depth=anatomy.depth, patches=anatomy.patches, prefix=anatomy.prefix):
        if counts.tokens_in - counts.tokens_out > PLANS[config.method].most * counts.tokens_in:
            raise ValueError(
                f"block {counts.block}: {config.method} cannot leave {counts.tokens_out} of {counts.tokens_in} tokens in one "
                f"step, at least {1 - PLANS[config.method].most:.0%} must stay; raise keep_rate, or reduce in more blocks"
            )
    adapter.check(model, config)
    for i in sorted({*config.sites(anatomy.depth), *range(anatomy.depth - config.prefix_only, anatomy.depth)}):
        prove(anatomy.blocks[i], classes[i], i, anatomy.width)
    unpatch(model)
    _reduce(anatomy, classes, config)
    adapter.patched(model, config)
    return model


def reduced_copy(model: Model, config: BATConfig) -> Model:
    """A patched copy that shares the weights; the model itself is left alone."""
    return patch(light_copy(model), config)


def unpatch(model: Model) -> Model:
    """Undo :func:`patch`, bit for bit. A model that is not patched is left alone."""
    adapter = adapter_of(model)
    for block in adapter.anatomy(model).blocks:
        if isinstance(block, ReducedBlock):
            become_dense(block)
    adapter.unpatched(model)
    return model


def register(adapter: Adapter) -> None:
    """Teach :func:`patch` another library's Vision Transformers; of two adapters for one model the later one wins.

    :func:`batvit.testing.check_backbone` says whether the adapter is right.

    Raises:
        TypeError: if it is no instance of :class:`Adapter`.
    """
    if not isinstance(adapter, Adapter):
        raise TypeError(f"expected an instance of batvit.Adapter, got {adapter!r}")
    REGISTERED.insert(0, adapter)


def supported() -> dict[str, dict[str, str]]:
    """Families that :func:`patch` takes, by library, each with a model as an example.

    Of libraries that are not installed, nothing is known.
    """
    for library in BUILT_IN:
        if importlib.util.find_spec(library) is not None:
            importlib.import_module(library)
    return _families()


def config_of(model: nn.Module) -> BATConfig | None:
    """The configuration a model is patched with, or None."""
    sites = reductions(model)
    return next(iter(sites.values())).config if sites else None


def reductions(model: nn.Module) -> dict[int, Reduce]:
    """The reductions of a patched model by block number, counted from 0."""
    sites = [module for module in model.modules() if isinstance(module, Reduce)]
    return {site.block: site for site in sites}


def anatomy_of(model: nn.Module, image_size: tuple[int, int] | None = None) -> Anatomy:
    """The parts of a supported model, for an image of (height, width) pixels; by default the model's own size.

    Raises:
        TypeError: if the model is not supported.
        ValueError: if it takes images of one size only, and not of this.
    """
    return adapter_of(model).anatomy(model, image_size)


def schedule(model: nn.Module, image_size: tuple[int, int] | None = None) -> tuple[Counts, ...]:
    """The counts at each site of a patched model that is run; empty if it is not patched."""
    anatomy, sites = anatomy_of(model, image_size), reductions(model)
    return tuple(sites[i].counts(anatomy.patches) for i in sites if anatomy.blocks[i].leave_as != "prefix")


def adapter_of(model: nn.Module) -> Adapter:
    """The adapter that knows a model.

    Raises:
        TypeError: if there is none, naming the class of the model and what is supported.
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"expected a torch.nn.Module, got {type(model).__name__}")
    if hasattr(model, "_orig_mod"):
        raise TypeError("this is a compiled model; call batvit on the model first, then torch.compile it")
    for adapter in _adapters():
        if adapter.matches(model):
            return adapter
    for name, module in model.named_modules():
        if name and any(adapter.matches(module) for adapter in _adapters()):
            raise TypeError(f"{type(model).__qualname__} holds a model that can be reduced: patch its {name} instead")
    kind = type(model)
    names = "; ".join(f"of {library}: {', '.join(families)}" for library, families in _families().items())
    raise TypeError(
        f"cannot reduce the tokens of {kind.__module__}.{kind.__qualname__}: no adapter knows this class; supported are, "
        f"{names} (batvit.supported() has all libraries and examples, batvit.register adds one){_unknown_versions()}"
    )


def _adapters() -> Iterator[Adapter]:
    yield from (adapter for adapter in REGISTERED if adapter.library in sys.modules)
    yield from (found for _, found in _built_in() if isinstance(found, Adapter))


def _built_in() -> Iterator[tuple[str, Adapter | Exception]]:
    """The adapters of the libraries that are imported; an error where the library is not as its adapter expects."""
    for library, files in BUILT_IN.items():
        if library in sys.modules:
            for file in files:
                try:
                    yield library, importlib.import_module(f"batvit.backbones.{file}").ADAPTER
                except (ImportError, AttributeError) as error:
                    yield library, error


def _unknown_versions() -> str:
    return "".join(
        f"; {library} {getattr(sys.modules[library], '__version__', '')} is of a version that batvit does not know: {error}"
        for library, error in _built_in()
        if isinstance(error, Exception)
    )


def _families() -> dict[str, dict[str, str]]:
    """What the adapters of the libraries that are imported know."""
    found: dict[str, dict[str, str]] = {}
    for adapter in _adapters():
        known = found.setdefault(adapter.library, {})
        known |= {family: example for family, example in adapter.families.items() if family not in known}
    return found


def _reduced_class(adapter: Adapter, anatomy: Anatomy, i: int) -> type[ReducedBlock]:
    """The reduced class for one block, if it is one of those the adapter was written for."""
    block = anatomy.blocks[i]
    known = {reduced.__bases__[-1]: reduced for reduced in adapter.blocks}
    reduced = known.get(type(block)) or (type(block) if isinstance(block, ReducedBlock) else None)
    if reduced is None:
        _refuse(anatomy, i, "block", block, tuple(known))
    attention = getattr(block, reduced.parts.attention)
    if "forward" in vars(block) or "forward" in vars(attention):
        raise TypeError(
            f"another library has put a forward of its own on block {i} of this {type(anatomy.tower).__name__}, as accelerate "
            "does where it dispatches a model; call batvit.patch first, then dispatch or wrap the model"
        )
    if type(attention) not in reduced.attentions:
        _refuse(anatomy, i, "attention", attention, reduced.attentions)
    return reduced


def _refuse(anatomy: Anatomy, i: int, part: str, found: object, known: tuple[type, ...]) -> NoReturn:
    raise TypeError(
        f"cannot reduce the tokens of this {type(anatomy.tower).__name__}: the {part} of block {i} is "
        f"{type(found).__module__}.{type(found).__qualname__}, and batvit knows "
        f"{', '.join(f'{kind.__module__}.{kind.__qualname__}' for kind in known)} (batvit.supported() lists the families)"
    )


def last_way(anatomy: Anatomy, config: BATConfig) -> str:
    """How the last block leaves its tokens: what reads patches gets the grid back, unless patches were dropped."""
    if config.prefix_only and anatomy.reads_prefix_only:
        return "prefix"
    return "grid" if anatomy.reads_patches and not PLANS[config.method].drops else "tensor"


def _reduce(anatomy: Anatomy, classes: list[type[ReducedBlock]], config: BATConfig) -> None:
    """Turn the blocks from the first site on into reduced blocks."""
    depth, sites, last = anatomy.depth, config.sites(anatomy.depth), last_way(anatomy, config)
    for i in range(sites[0], depth):
        reduce = None
        if i in sites:
            reduce = Reduce(config, i, depth=depth, prefix=anatomy.prefix, class_token=anatomy.class_token)
        become_reduced(
            anatomy.blocks[i],
            classes[i],
            prefix=anatomy.prefix,
            leave_as=last if i == depth - 1 else "tokens",
            reduce=reduce,
        )
