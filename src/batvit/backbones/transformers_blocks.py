"""The reduced classes of transformers' layers, made from the table of families when asked for."""

import sys
from importlib import import_module
from inspect import signature
from typing import Any

from batvit.backbones.transformers_common import MASK, ReducedLayer
from batvit.backbones.transformers_families import FAMILIES, Family

ATTENTIONS = ("Attention", "VisionAttention", "SelfAttention", "SdpaSelfAttention")
"""what follows in the names of attentions where ``Layer`` or ``EncoderLayer`` does in a layer's"""


def family_of(layer: type) -> Family | None:
    """Return the family whose layer a class is, or was made from."""
    names = {(kind.__module__, kind.__name__) for kind in layer.__mro__}
    for family in FAMILIES:
        if (family.module, family.layer) in names:
            return family
    return None


def reduced_classes() -> tuple[type[ReducedLayer], ...]:
    """Return the reduced classes of the families whose file is imported."""
    classes = []
    for family in FAMILIES:
        if hasattr(sys.modules.get(family.module), family.layer):
            classes.append(reduced_class(family))
    return tuple(classes)


def reduced_class(family: Family) -> type[ReducedLayer]:
    """Return the reduced class of a family, always the same."""
    name = f"Reduced{family.layer}"
    made: type[ReducedLayer] | None = globals().get(name)
    if made is None:
        # another thread may make one, too: the first one stays
        made = globals().setdefault(name, _made(family, name))
    return made


def _made(family: Family, name: str) -> type[ReducedLayer]:
    file = import_module(family.module)
    own = getattr(file, family.layer)
    stem = family.layer.removesuffix("Layer").removesuffix("Encoder")
    attentions = (*(f"{stem}{ending}" for ending in ATTENTIONS), family.attention)
    body: dict[str, Any] = {
        "__module__": __name__,
        "__doc__": f"The layer of {family.name}, reduced.",
        "parts": family.parts,
        "attentions": tuple(getattr(file, kind) for kind in attentions if hasattr(file, kind)),
        "eager": staticmethod(getattr(file, family.eager, _no_eager)),
    }
    if not hasattr(family.kind, "mask"):
        body["mask"] = MASK if MASK in signature(own.forward).parameters else None
    return type(name, (family.kind, own), body)


def _no_eager(*args: Any, **arguments: Any) -> Any:
    raise AssertionError("this attention asks no interface")


def __getattr__(name: str) -> Any:
    """Make a reduced class, as a pickled layer names it."""
    for family in FAMILIES:
        if name == f"Reduced{family.layer}":
            return reduced_class(family)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
