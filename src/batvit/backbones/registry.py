"""Which adapter knows a model: those of the libraries that are imported, and those that were registered."""

import importlib
import sys
from collections.abc import Iterator

from torch import nn

from batvit.backbones.adapter import Adapter, Anatomy

LIBRARIES = {
    "timm": ("timm_vit", "timm_eva"),
    "transformers": ("transformers_vit",),
    "torchvision": ("torchvision_vit",),
    "open_clip": ("open_clip_vit",),
}
"""library to the files of this folder that know it, imported once the library is"""
REGISTERED: list[Adapter] = []


def register(adapter: Adapter) -> None:
    """Teach :func:`batvit.patch` another library's Vision Transformers; of two adapters for one model the later one wins.

    :func:`batvit.testing.check_backbone` says whether the adapter is right.

    Raises:
        TypeError: if it is no instance of :class:`Adapter`.
    """
    if not isinstance(adapter, Adapter):
        raise TypeError(f"expected an instance of batvit.Adapter, got {adapter!r}")
    REGISTERED.insert(0, adapter)


def anatomy_of(model: nn.Module, image_size: tuple[int, int] | None = None) -> Anatomy:
    """Return the parts of a supported model.

    Args:
        model: of a library that has an adapter.
        image_size: (height, width) in pixels; the model's own by default.

    Raises:
        TypeError: if the model is not supported.
        ValueError: if it takes images of one size only, and not of this.
    """
    return adapter_of(model).anatomy(model, image_size)


def adapter_of(model: nn.Module) -> Adapter:
    """Return the adapter that knows a model.

    Raises:
        TypeError: if there is none, naming the class of the model and what is supported.
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"expected a torch.nn.Module, got {type(model).__name__}")
    if hasattr(model, "_orig_mod"):
        raise TypeError(
            "this is a compiled model; call batvit on the model first, then torch.compile it"
        )
    for adapter in _adapters():
        if adapter.matches(model):
            return adapter
    for name, module in model.named_modules():
        if name and any(adapter.matches(module) for adapter in _adapters()):
            raise TypeError(
                f"{type(model).__qualname__} holds a model that can be reduced: patch its {name} instead"
            )
    kind = type(model)
    known = "; ".join(f"of {library}: {', '.join(each)}" for library, each in families().items())
    raise TypeError(
        f"cannot reduce the tokens of {kind.__module__}.{kind.__qualname__}: no adapter knows this class; supported are, "
        f"{known} (batvit.supported() has all libraries and examples, batvit.register adds one){_unknown_versions()}"
    )


def families() -> dict[str, dict[str, str]]:
    """Return the families of the libraries that are imported, by library, each with a model as an example."""
    found: dict[str, dict[str, str]] = {}
    for adapter in _adapters():
        known = found.setdefault(adapter.library, {})
        for family, example in adapter.families.items():
            known.setdefault(family, example)
    return found


def _adapters() -> Iterator[Adapter]:
    yield from (adapter for adapter in REGISTERED if adapter.library in sys.modules)
    yield from (adapter for _, adapter in _built_in() if isinstance(adapter, Adapter))


def _built_in() -> Iterator[tuple[str, Adapter | Exception]]:
    """The adapters of the libraries that are imported; an error where the library is not as its adapter expects."""
    for library, files in LIBRARIES.items():
        if library not in sys.modules:
            continue
        for file in files:
            try:
                yield library, importlib.import_module(f"batvit.backbones.{file}").ADAPTER
            except (ImportError, AttributeError) as error:
                yield library, error


def _unknown_versions() -> str:
    text = ""
    for library, error in _built_in():
        if isinstance(error, Exception):
            version = getattr(sys.modules[library], "__version__", "")
            text += f"; {library} {version} is of a version that batvit does not know: {error}"
    return text
