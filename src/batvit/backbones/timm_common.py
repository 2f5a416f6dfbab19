"""What timm's Vision Transformers have in common: attention with two norms, stem, blocks, head."""

from typing import Any, ClassVar

from torch import Tensor, nn

from batvit.backbones.adapter import Adapter, Anatomy, last_output_form
from batvit.backbones.attention_capture import AttentionCapture
from batvit.config import BATConfig
from batvit.reduction.block import refuse_symbols
from batvit.reduction.grid import WithGrid, become_with_grid, become_without_grid
from batvit.reduction.site import config_of
from batvit.reduction.wrapped import is_reducible

# attributes by which a head says what it reads
DECIDE_WHAT_IS_READ = ("global_pool", "token_labeling")


class NormCapture(AttentionCapture):
    """Captures what the two norms give that every attention of timm has, if only as identities."""

    def q_norm(self, queries: Tensor) -> Tensor:
        self.queries = self.module.q_norm(queries)
        return self.queries

    def k_norm(self, keys: Tensor) -> Tensor:
        self.keys = self.module.k_norm(keys)
        return self.keys


def timm_anatomy(model: Any, image_size: tuple[int, int] | None, *, class_token: bool) -> Anatomy:
    """Return the parts of a model of timm.

    Args:
        model: with a ``patch_embed`` and ``blocks``.
        image_size: (height, width) in pixels; the model's own by default.
        class_token: whether it has one.

    Raises:
        ValueError: if it takes images of one size only, and not of this.
    """
    embed = model.patch_embed
    own_size = tuple(embed.img_size)
    size = own_size if image_size is None else tuple(image_size)
    if embed.strict_img_size and size != own_size:
        raise ValueError(
            f"this model takes images of {own_size[0]} x {own_size[1]}, "
            f"got {size[0]} x {size[1]}; "
            "call its set_input_size, or create it with dynamic_img_size=True"
        )
    return Anatomy(
        tower=model,
        stem=embed,
        blocks=tuple(model.blocks),
        image_size=(size[0], size[1]),
        grid=tuple(embed.dynamic_feat_size(size)),
        width=model.embed_dim,
        prefix=model.num_prefix_tokens,
        class_token=class_token,
        reads_patches=model.global_pool != "token",
        reads_prefix_only=model.global_pool == "token",
    )


class WithHead(WithGrid):
    """One of timm's models with reduced blocks: the last of them gives what the head reads."""

    adapter: ClassVar[Adapter]
    """the adapter that knows this class; set by the adapter itself"""

    def __setattr__(self, name: str, value: Any) -> None:
        super().__setattr__(name, value)
        config = config_of(self) if name in DECIDE_WHAT_IS_READ else None
        if config is not None:
            anatomy = self.adapter.anatomy(self)
            last: Any = anatomy.blocks[-1]
            last.output_form = last_output_form(anatomy, config)

    def forward(self, x: Any, *args: Any, **arguments: Any) -> Any:
        """Do as the model's own, whose head reads what the last block gives."""
        refuse_symbols(x)
        return super().forward(x, *args, **arguments)


class TimmAdapter(Adapter):
    """Classes of timm's models, and what each becomes so that its feature maps are whole."""

    library = "timm"
    models: ClassVar[tuple[type[WithHead], ...]]
    """a reduced class for every class of model"""

    def __init__(self) -> None:
        for reduced in self.models:
            reduced.adapter = self

    def matches(self, model: nn.Module) -> bool:
        return self._reduced_class(model) is not None

    def patched(self, model: nn.Module, config: BATConfig) -> None:
        reduced = self._reduced_class(model)
        if reduced is not None:
            become_with_grid(model, reduced)
        _store_in_model_args(model, config)

    def unpatched(self, model: nn.Module) -> None:
        become_without_grid(model)

    def _reduced_class(self, model: nn.Module) -> type[WithHead] | None:
        for reduced in self.models:
            if is_reducible(type(model), reduced):
                return reduced
        return None


def _store_in_model_args(model: Any, config: BATConfig) -> None:
    """Put a reduction among the arguments by which timm makes once more what it saved.

    Of the models whose name in timm's registry says that they are reduced.
    """
    architecture = getattr(model, "pretrained_cfg", {}).get("architecture") or ""
    if not architecture.startswith("bat_") or not hasattr(model, "_model_args"):
        return
    model_args = dict(model._model_args)
    # what was given field by field is in the whole reduction
    for name in (*config.to_dict(), "mode"):
        model_args.pop(name, None)
    model._model_args = model_args | {"reduction": config.to_dict()}
