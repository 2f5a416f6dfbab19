"""The adapter of a model that holds another, which a library wrapped around it as a whole."""

from dataclasses import replace
from typing import Any

from torch import nn

from batvit.backbones.adapter import Adapter, Anatomy
from batvit.config import BATConfig
from batvit.reduction.block import ReducedBlock

WRAPPERS = ("transformers", "peft")
"""libraries whose models may hold one of another library: TimmWrapperModel, PeftModel"""


class Held(Adapter):
    """Does for a model what another adapter does for the one that it holds."""

    library = ""
    families = {}  # noqa: RUF012 - as in Adapter
    blocks = ()

    def __init__(self, adapter: Adapter, name: str) -> None:
        self.adapter = adapter
        self.name = name

    def reduced_classes(self) -> tuple[type[ReducedBlock], ...]:
        return self.adapter.reduced_classes()

    def matches(self, model: nn.Module) -> bool:
        return self.adapter.matches(self._inside(model))

    def anatomy(self, model: nn.Module, image_size: tuple[int, int] | None = None) -> Anatomy:
        anatomy = self.adapter.anatomy(self._inside(model), image_size)
        # transformers gives the features of all patches
        whole = any(_is_of(part, "transformers") for part in self._around(model))
        return replace(anatomy, reads_patches=True, reads_prefix_only=False) if whole else anatomy

    def check(self, model: nn.Module, config: BATConfig) -> None:
        self.adapter.check(self._inside(model), config)

    def patched(self, model: nn.Module, config: BATConfig) -> None:
        self.adapter.patched(self._inside(model), config)
        own: Any = getattr(model, "config", None)
        if hasattr(own, "save_pretrained"):
            # batvit.load finds it there
            own.batvit = config.to_dict()

    def unpatched(self, model: nn.Module) -> None:
        self.adapter.unpatched(self._inside(model))
        own = getattr(model, "config", None)
        if hasattr(own, "save_pretrained"):
            vars(own).pop("batvit", None)

    def _inside(self, model: nn.Module) -> nn.Module:
        return model.get_submodule(self.name)

    def _around(self, model: nn.Module) -> list[nn.Module]:
        names = self.name.split(".")
        return [model.get_submodule(".".join(names[:i])) for i in range(len(names))]


def is_wrapper(model: nn.Module) -> bool:
    """Return whether a model is of a library whose models may hold one of another library."""
    return any(_is_of(model, library) for library in WRAPPERS)


def _is_of(model: nn.Module, library: str) -> bool:
    return any(kind.__module__.partition(".")[0] == library for kind in type(model).__mro__)
