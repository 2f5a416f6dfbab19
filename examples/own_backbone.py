"""A Vision Transformer of your own, and the one file that teaches batvit to reduce it.

python examples/own_backbone.py
"""

from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention

import batvit
from batvit.reduction.block import Parts, ReducedBlock
from batvit.reduction.site import QueriesKeys
from batvit.reduction.tokens import Tokens
from batvit.testing.run_contract import check_backbone

# the model, as you have it


class MyAttention(nn.Module):
    """Multi-head attention that takes a bias for its logits."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(dim, 3 * dim)
        self.out = nn.Linear(dim, dim)

    def split(self, x: Tensor) -> Tensor:
        """Return queries, keys and values (3, B, heads, tokens, width)."""
        return self.qkv(x).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)

    def forward(self, x: Tensor, bias: Tensor | None = None) -> Tensor:
        q, k, v = self.split(x)
        heads = scaled_dot_product_attention(q, k, v, attn_mask=bias)
        return self.out(heads.transpose(1, 2).flatten(2))


class MyBlock(nn.Module):
    """Pre-norm block."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.norm_a = nn.LayerNorm(dim)
        self.attention = MyAttention(dim, heads)
        self.norm_b = nn.LayerNorm(dim)
        self.mlp = nn.Sequential(nn.Linear(dim, 4 * dim), nn.GELU(), nn.Linear(4 * dim, dim))

    def forward(self, x: Tensor, bias: Tensor | None = None) -> Tensor:
        x = x + self.attention(self.norm_a(x), bias)
        return x + self.mlp(self.norm_b(x))


class MyViT(nn.Module):
    """A class token, patches of 8 x 8 pixels, and a head that reads the class token."""

    def __init__(
        self, size: int = 64, dim: int = 48, depth: int = 4, heads: int = 3, classes: int = 10
    ) -> None:
        super().__init__()
        self.size = size
        self.dim = dim
        self.patches = nn.Conv2d(3, dim, 8, 8)
        self.start = nn.Parameter(torch.zeros(1, 1, dim))
        self.places = nn.Parameter(torch.zeros(1, (size // 8) ** 2 + 1, dim))
        self.blocks = nn.ModuleList(MyBlock(dim, heads) for _ in range(depth))
        self.norm = nn.LayerNorm(dim)
        self.head = nn.Linear(dim, classes)

    def forward(self, images: Tensor) -> Tensor:
        x = self.patches(images).flatten(2).transpose(1, 2)
        x = torch.cat([self.start.expand(len(x), -1, -1), x], dim=1) + self.places
        for block in self.blocks:
            x = block(x)
        return self.head(self.norm(x)[:, 0])


# what batvit has to know of it


class ReducedMyBlock(ReducedBlock, MyBlock):
    """The block's parts in the order in which it runs them, and how its attention is run."""

    parts = Parts("norm_a", "attention", (), "norm_b", "mlp", ())
    attentions = (MyAttention,)
    mask = "bias"

    def forward(self, x: Tensor | Tokens, bias: Tensor | None = None) -> Any:
        return self.run(x)

    def attend(
        self, x: Tensor, bias: Tensor | None, arguments: dict[str, Any]
    ) -> tuple[Tensor, QueriesKeys]:
        queries, keys, _ = self.attention.split(x)
        return self.attention(x, bias), QueriesKeys(queries, keys, scale=queries.shape[-1] ** -0.5)


class MyAdapter(batvit.Adapter):
    """Where the blocks are, and how many tokens stand before the patches."""

    library = __name__.partition(".")[0]
    families: ClassVar[dict[str, str]] = {"my ViT": "MyViT"}
    blocks = (ReducedMyBlock,)

    def matches(self, model: nn.Module) -> bool:
        return isinstance(model, MyViT)

    def anatomy(
        self, model: nn.Module, image_size: tuple[int, int] | None = None
    ) -> batvit.Anatomy:
        side = model.size // 8
        return batvit.Anatomy(
            tower=model,
            stem=model.patches,
            blocks=tuple(model.blocks),
            image_size=(model.size, model.size),
            grid=(side, side),
            width=model.dim,
            prefix=1,
            class_token=True,
            reads_patches=False,
            reads_prefix_only=True,
        )


batvit.register(MyAdapter())

if __name__ == "__main__":
    passed = check_backbone(MyViT, torch.randn(2, 3, 64, 64))
    print("passed:", ", ".join(passed))
    print(batvit.info(batvit.patch(MyViT(), keep_rate=0.7)))
