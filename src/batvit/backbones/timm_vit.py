"""timm's Vision Transformers: what a reduced block is, and where it goes in the model."""

from collections.abc import Iterable
from typing import Any

import timm
import torch
from timm.layers.attention import Attention
from timm.models.deit import VisionTransformerDistilled
from timm.models.vision_transformer import Block, VisionTransformer
from torch import Tensor, nn

from batvit.backbones.site import Geometry, Heard, Reduce, Tokens
from batvit.config import BATConfig
from batvit.copies import quiet_copy
from batvit.plans import PLANS

MODELS = (VisionTransformer, VisionTransformerDistilled)
FAMILIES = {
    "ViT, AugReg": "vit_base_patch16_224",
    "DeiT": "deit_small_patch16_224",
    "DeiT distilled": "deit_small_distilled_patch16_224",
    "DeiT-III": "deit3_small_patch16_224",
    "DINOv2": "vit_small_patch14_dinov2",
    "DINOv2 with registers": "vit_small_patch14_reg4_dinov2",
    "MAE": "vit_base_patch16_224.mae",
    "CLIP image tower": "vit_base_patch16_clip_224",
    "SigLIP image tower": "vit_base_patch16_siglip_224",
}


class _Ear:
    """Stands in for an attention module during one call, to hear the queries and keys that it makes.

    The module's own ``forward`` runs with this object as ``self``; everything but the two norms is the module's.
    """

    queries: Tensor
    keys: Tensor

    def __init__(self, attention: Any) -> None:
        self.attention = attention

    def __getattr__(self, name: str) -> Any:
        return getattr(self.attention, name)

    def q_norm(self, queries: Tensor) -> Tensor:
        self.queries = self.attention.q_norm(queries)
        return self.queries

    def k_norm(self, keys: Tensor) -> Tensor:
        self.keys = self.attention.k_norm(keys)
        return self.keys

    def __call__(self, x: Tensor, attn_mask: Tensor | None) -> Tensor:
        attended: Tensor = type(self.attention).forward(self, x, attn_mask=attn_mask)
        return attended


class ReducedBlock(Block):
    """A timm block from the first site on: takes and returns :class:`Tokens`, and reduces them if it is a site.

    ``patch`` turns a block into this class in place, and ``unpatch`` turns it back: no weight is moved or renamed.
    """

    prefix: int
    size_aware: bool
    leave_as: str
    reduce: Reduce | None

    def forward(self, x: Tensor | Tokens, attn_mask: Tensor | None = None, is_causal: bool = False) -> Any:
        """As the block's own, with the tokens' sizes and origins beside them."""
        if attn_mask is not None or is_causal:
            raise ValueError("a reduced model takes no attn_mask: the tokens it is about are merged; batvit.unpatch the model")
        tokens = x if isinstance(x, Tokens) else Tokens.start(x, self.prefix)
        bias = tokens.bias().to(tokens.x.dtype) if self.size_aware and isinstance(x, Tokens) else None
        if self.reduce is None:
            tokens = tokens._replace(x=super().forward(tokens.x, attn_mask=bias))
        else:
            tokens = self._with_reduction(tokens, bias, self.reduce)
        if self.leave_as == "tokens":
            return tokens
        return tokens.grid() if self.leave_as == "grid" else tokens.x

    def _with_reduction(self, tokens: Tokens, bias: Tensor | None, reduce: Reduce) -> Tokens:
        # Block.forward, opened between its two lines; patch proves that it still has just these
        attention: Any = self.attn
        hear = _Ear(attention)
        x = tokens.x + self.drop_path1(self.ls1(hear(self.norm1(tokens.x), bias)))
        tokens = reduce(tokens._replace(x=x), Heard(hear.queries, hear.keys, attention.scale))
        return tokens._replace(x=tokens.x + self.drop_path2(self.ls2(self.mlp(self.norm2(tokens.x)))))


def matches(model: nn.Module) -> bool:
    """Whether this adapter is the one for a model."""
    return type(model) in MODELS


def check(model: VisionTransformer) -> None:
    """Refuse a model whose blocks are not the ones this file was written for."""
    for i, block in enumerate(model.blocks):
        if type(block) not in (Block, ReducedBlock):
            _refuse(model, i, "block", block, Block)
        if type(block.attn) is not Attention:
            _refuse(model, i, "attention", block.attn, Attention)


def geometry(model: VisionTransformer, image_size: tuple[int, int] | None = None) -> Geometry:
    """Depth, patch grid and prefix tokens."""
    embed = model.patch_embed
    if image_size is not None and embed.strict_img_size and tuple(image_size) != tuple(embed.img_size):
        raise ValueError(
            f"this model takes images of {embed.img_size[0]} x {embed.img_size[1]}, got {image_size[0]} x {image_size[1]}; "
            "call its set_input_size, or create it with dynamic_img_size=True"
        )
    grid = embed.grid_size if image_size is None else embed.dynamic_feat_size(image_size)
    return Geometry(len(model.blocks), tuple(grid), model.num_prefix_tokens)


def stem(model: VisionTransformer) -> nn.Module:
    """What every image goes through first."""
    first: nn.Module = model.patch_embed
    return first


def blocks(model: VisionTransformer) -> Iterable[nn.Module]:
    """The blocks, in order."""
    return model.blocks


def patch(model: VisionTransformer, config: BATConfig) -> None:
    """Turn the blocks from the first site on into reduced blocks."""
    depth, prefix = len(model.blocks), model.num_prefix_tokens
    sites = config.sites(depth)
    # what pools patches gets the grid back, unless patches were dropped
    pools_patches = model.global_pool != "token"
    last = "grid" if pools_patches and not PLANS[config.method].drops else "tensor"
    for i, block in enumerate(model.blocks[sites[0] :], start=sites[0]):
        reduce = None
        if i in sites:
            _prove(block, i, model.embed_dim)
            reduce = Reduce(config, i, depth=depth, prefix=prefix, class_token=model.has_class_token)
        _become_reduced(block, prefix, config.size_aware, last if i == depth - 1 else "tokens", reduce)


def unpatch(model: VisionTransformer) -> None:
    """Turn reduced blocks back into timm's."""
    block: Any
    for block in model.blocks:
        if type(block) is ReducedBlock:
            for name in ("prefix", "size_aware", "leave_as", "reduce"):
                delattr(block, name)
            block.__class__ = Block  # type: ignore[assignment]


def _become_reduced(block: Any, prefix: int, size_aware: bool, leave_as: str, reduce: Reduce | None) -> None:
    block.__class__ = ReducedBlock
    block.prefix, block.size_aware, block.leave_as, block.reduce = prefix, size_aware, leave_as, reduce


def _prove(block: nn.Module, i: int, width: int) -> None:
    """Refuse a block that computes something else once it is opened: its forward is not the one known here."""
    weight = next(block.parameters())
    if weight.is_meta:
        return
    x = torch.linspace(-1, 1, 5 * width, device=weight.device).reshape(1, 5, -1).to(weight.dtype)
    keep_all = Reduce(BATConfig(keep_rate=1.0, blocks=(i,)), i, depth=i + 1, prefix=1, class_token=True)
    twin = quiet_copy(block)
    with torch.no_grad():
        expected = twin(x)
        try:
            _become_reduced(twin, 1, False, "tensor", keep_all)
            found = twin(x)
        except (AttributeError, TypeError) as error:
            raise TypeError(f"{_not_known()}: {error}") from error
    if not torch.allclose(expected.float(), found.float(), rtol=1e-3, atol=1e-3):
        raise TypeError(f"{_not_known()}: opened, it differs by {(expected - found).abs().max():.2g}")


def _not_known() -> str:
    return f"timm {timm.__version__}'s {Block.__name__} does not compute what batvit was written for"


def _refuse(model: VisionTransformer, i: int, part: str, found: object, known: type) -> None:
    raise TypeError(
        f"cannot reduce the tokens of this {type(model).__name__}: the {part} of block {i} is "
        f"{type(found).__module__}.{type(found).__name__}, and batvit knows timm's {known.__name__}; "
        f"supported are: {', '.join(FAMILIES)}"
    )
