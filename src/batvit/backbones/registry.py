"""Which adapter knows a model: built-in ones of the libraries imported, and registered ones."""

import importlib
import sys
from collections.abc import Iterator

from torch import nn

from batvit.backbones.adapter import Adapter, Anatomy
from batvit.backbones.held_model import Held, is_wrapper

LIBRARIES = {
    "timm": ("timm_vit", "timm_eva"),
    "transformers": ("transformers_vit",),
    "torchvision": ("torchvision_vit",),
    "open_clip": ("open_clip_vit",),
}
"""library to the files of this folder that know it, imported once the library is"""
REGISTERED: list[Adapter] = []
UNKNOWN = (
    "no adapter knows this class; batvit.supported() lists what can be reduced, "
    "batvit.register adds a class"
)


def register(adapter: Adapter) -> None:
    """Teach :func:`batvit.patch` another library's Vision Transformers.

    Of two adapters for one model the later one wins. :func:`batvit.testing.check_backbone` says
    whether an adapter is right.

    Raises:
        TypeError: if it is no instance of :class:`Adapter`.

    Examples:
        The start of an adapter; ``examples/own_backbone.py`` is a whole one.

        >>> class MyAdapter(batvit.Adapter):
        ...     library, families, blocks = "my_library", {"my ViT": "MyViT"}, ()
        ...     matches = lambda self, model: type(model).__name__ == "MyViT"
        ...     anatomy = lambda self, model, image_size=None: batvit.Anatomy(...)
        >>> batvit.register(MyAdapter())
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
        TypeError: if there is none, naming the class of the model and why.
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
    reason = _reason(model)
    held = _held(model) if reason is None else None
    if held is not None and is_wrapper(model):
        return held
    if held is not None:
        raise TypeError(
            f"{type(model).__qualname__} holds a model that can be reduced: "
            f"patch its {held.name} instead"
        )
    kind = type(model)
    raise TypeError(
        f"cannot reduce the tokens of {kind.__module__}.{kind.__qualname__}: "
        f"{reason or UNKNOWN}{_unknown_versions()}"
    )


def _reason(model: nn.Module) -> str | None:
    """Return why a model that no adapter matches cannot be reduced, if an adapter knows."""
    for adapter in _adapters():
        reason = adapter.refusal(model)
        if reason is not None:
            return reason
    return None


def _held(model: nn.Module) -> Held | None:
    """Return an adapter by the first module inside a model that another one matches."""
    for name, module in model.named_modules():
        for adapter in _adapters():
            if name and adapter.matches(module):
                return Held(adapter, name)
    return None


def families() -> dict[str, dict[str, str]]:
    """Return the families of the libraries that are imported, by library.

    Each with a model as an example.
    """
    by_library: dict[str, dict[str, str]] = {}
    for adapter in _adapters():
        examples = by_library.setdefault(adapter.library, {})
        for family, example in adapter.families.items():
            # of two adapters the later one comes first
            examples.setdefault(family, example)
    return by_library


def _adapters() -> Iterator[Adapter]:
    """Give the adapters of the libraries that are imported, those that were registered first."""
    for adapter in REGISTERED:
        if adapter.library in sys.modules:
            yield adapter
    for _, built_in in _built_in():
        if isinstance(built_in, Adapter):
            yield built_in


def _built_in() -> Iterator[tuple[str, Adapter | Exception]]:
    """Give the adapters of the libraries that are imported, each with its library.

    An error where the library is not as its adapter expects.
    """
    for library, files in LIBRARIES.items():
        if library not in sys.modules:
            continue
        for file in files:
            try:
                yield library, importlib.import_module(f"batvit.backbones.{file}").ADAPTER
            except (ImportError, AttributeError) as error:
                yield library, error


def _unknown_versions() -> str:
    """Return what to add to a refusal about libraries that are not as their adapters expect."""
    text = ""
    for library, error in _built_in():
        if isinstance(error, Exception):
            version = getattr(sys.modules[library], "__version__", "")
            text += f"; {library} {version} is of a version that batvit does not know: {error}"
    return text
