"""Where a model of transformers takes images: its tower, and the layers of it."""

from inspect import signature
from typing import Any, NamedTuple

from torch import nn
from transformers import PreTrainedModel

from batvit.backbones.transformers_blocks import family_of
from batvit.reduction.wrapped import unwrapped

PATCHES = ("patch_embeddings", "patch_embedding", "patch_embed", "patch_projection", "cls_token")
"""by one of these the embeddings of images are known from those of texts"""
CLASS_TOKENS = ("cls_token", "class_embedding", "cls_register_token")
OTHER_TOKENS = ("distillation_token", "register_tokens")
BESIDE_IMAGES = {"input_ids", "decoder_input_ids"}
"""arguments of a model that takes more than images"""


class Tower(NamedTuple):
    """The part of a model that takes images."""

    owner: Any
    """a model of its own, with a configuration"""
    stem: Any
    """its embeddings"""
    layers: tuple[nn.Module, ...]

    @property
    def class_tokens(self) -> int:
        """How many of its tokens are class tokens, or begin with one."""
        return sum(self._tokens(name) for name in CLASS_TOKENS)

    @property
    def other_tokens(self) -> int:
        """How many other tokens stand before the patches."""
        return sum(self._tokens(name) for name in OTHER_TOKENS)

    def _tokens(self, name: str) -> int:
        # (C,) is one, (1, n, C) are n
        tokens = getattr(self.stem, name, None)
        if tokens is None:
            return 0
        return int(tokens.shape[-2]) if tokens.dim() > 1 else 1

    @property
    def recorder(self) -> nn.Module:
        """The innermost model around the layers: it collects the hidden states."""
        innermost: nn.Module = self.owner
        for part in self.owner.modules():
            if isinstance(part, PreTrainedModel) and set(self.layers) <= set(part.modules()):
                innermost = part
        return innermost


def tower_of(model: nn.Module) -> Tower | None:
    """Return the first tower of a model whose layers are known; None if there is none.

    Texts may go through layers of the same class.
    """
    for name, part in model.named_modules():
        if not (isinstance(part, nn.ModuleList | nn.Sequential) and len(part)):
            continue
        if family_of(type(unwrapped(part[0]))) is None:
            continue
        around = _around(model, name)
        while around and not hasattr(around[0], "embeddings"):
            around.pop(0)
        owners = [one for one in around if isinstance(one, PreTrainedModel)]
        if owners and any(hasattr(around[0].embeddings, patches) for patches in PATCHES):
            return Tower(owners[0], around[0].embeddings, tuple(part))
    return None


def takes_images_alone(model: Any) -> bool:
    """Return whether a model can be called with images and nothing else."""
    if model.main_input_name != "pixel_values" or hasattr(model, "decoder"):
        return False
    return not BESIDE_IMAGES & set(signature(model.forward).parameters)


def _around(model: nn.Module, name: str) -> list[Any]:
    """Return the modules around one of a model, from inside out."""
    around = []
    while name:
        name = name.rpartition(".")[0]
        around.append(model.get_submodule(name))
    return around
