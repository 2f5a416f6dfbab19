"""A whole Vision Transformer with Beyond Attentive Tokens inline, in torch alone.

Nothing is imported from batvit. Read it from top to bottom: decouple, match, cluster, reduce, and
the block they sit in. A test holds it equal to the library (preset ``paper``, timm's
``deit_tiny_patch16_224`` layout, same weight names).
"""

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize, scaled_dot_product_attention


def decouple(importance: Tensor, attentive: int) -> tuple[Tensor, Tensor]:
    """Return the tokens the class token looks at most (B, A), and the rest (B, N - A)."""
    order = importance.argsort(dim=1, descending=True, stable=True)
    return order[:, :attentive], order[:, attentive:]


def take(x: Tensor, index: Tensor) -> Tensor:
    """Return the tokens (B, M, C) at the given positions (B, M)."""
    return x.gather(1, index[..., None].expand(-1, -1, x.shape[-1]))


def match(x: Tensor, pairs: int) -> Tensor:
    """Return the group of each attentive token (B, A): every second one may join another.

    Those that are most like their most similar other do.
    """
    unit = normalize(x, dim=-1)
    best, partner = (unit[:, 0::2] @ unit[:, 1::2].transpose(1, 2)).max(dim=2)
    rank = best.argsort(dim=1, descending=True, stable=True).argsort(dim=1)
    alone = best.shape[1] - pairs
    group = torch.empty(x.shape[:2], dtype=torch.long)
    group[:, 0::2] = torch.where(rank < pairs, alone + partner, rank - pairs)
    group[:, 1::2] = alone + torch.arange(x.shape[1] // 2)
    return group


def cluster(x: Tensor, centres: int) -> Tensor:
    """Return the group of each inattentive token (B, I): density peaks."""
    norm = x.square().sum(-1)
    distance = (norm[:, :, None] + norm[:, None] - 2 * (x @ x.transpose(1, 2))).clamp(min=0)
    density = (-distance.mean(-1) / x.shape[-1]).exp()
    place = torch.arange(x.shape[1])
    denser = density[:, None] > density[:, :, None]
    denser |= (density[:, None] == density[:, :, None]) & (place < place[:, None])
    nearest = distance.masked_fill(~denser, torch.inf).amin(-1)
    separation = torch.where(nearest.isinf(), distance.amax(-1), nearest).sqrt()
    centre = (density * separation).argsort(dim=1, descending=True, stable=True)[:, :centres]
    group = distance.gather(2, centre[:, None].expand(-1, x.shape[1], -1)).argmin(-1)
    return group.scatter(1, centre, torch.arange(centres).expand_as(centre))


def reduce(x: Tensor, importance: Tensor, attentive: int, pairs: int, centres: int) -> Tensor:
    """Take image tokens (B, N, C) to attentive - pairs + centres groups.

    Each group is the mean of its members, weighted by importance.
    """
    batch, _, channels = x.shape
    groups = attentive - pairs + centres
    top, rest = decouple(importance, attentive)
    matched = match(take(x, top), pairs)
    clustered = cluster(take(x, rest), centres)

    # attentive tokens first, and their groups
    order = torch.cat([top, rest], dim=1)
    group = torch.cat([matched, clustered + attentive - pairs], dim=1)

    # each token's share of its group, and the sums of these shares
    weight = importance.gather(1, order)
    total = weight.new_zeros(batch, groups).scatter_add(1, group, weight)
    share = weight / total.gather(1, group)
    members = take(x, order) * share[..., None]
    rows = group[..., None].expand(-1, -1, channels)
    return x.new_zeros(batch, groups, channels).scatter_add(1, rows, members)


class Attention(nn.Module):
    """Multi-head self-attention that can also tell what the class token looks at."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(dim, 3 * dim)
        self.proj = nn.Linear(dim, dim)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """(B, 1 + N, C) to the same, and the class attention (B, N)."""
        batch, tokens, dim = x.shape
        q, k, v = self.qkv(x).reshape(batch, tokens, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        out = scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(batch, tokens, dim)
        row = (q[:, :, :1] * q.shape[-1] ** -0.5 @ k.transpose(-2, -1)).softmax(-1)
        return self.proj(out), row.mean(1)[:, 0, 1:]


class Mlp(nn.Module):
    """Two layers with GELU."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(dim, 4 * dim)
        self.fc2 = nn.Linear(4 * dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        """(B, N, C) to the same."""
        return self.fc2(nn.functional.gelu(self.fc1(x)))


class Block(nn.Module):
    """Attention, then the reduction if this is a site, then the MLP."""

    def __init__(self, dim: int, heads: int, site: tuple[int, int, int] | None) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(dim, eps=1e-6)
        self.attn = Attention(dim, heads)
        self.norm2 = nn.LayerNorm(dim, eps=1e-6)
        self.mlp = Mlp(dim)
        self.site = site

    def forward(self, x: Tensor) -> Tensor:
        """(B, 1 + N, C) to (B, 1 + M, C)."""
        out, importance = self.attn(self.norm1(x))
        x = x + out
        if self.site is not None:
            x = torch.cat([x[:, :1], reduce(x[:, 1:], importance, *self.site)], dim=1)
        return x + self.mlp(self.norm2(x))


class PatchEmbed(nn.Module):
    """Patches as tokens."""

    def __init__(self, dim: int, patch: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(3, dim, patch, patch)

    def forward(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) to (B, N, C)."""
        return self.proj(images).flatten(2).transpose(1, 2)


class VisionTransformer(nn.Module):
    """DeiT with a class token; ``sites`` maps a block to (attentive, pairs, centres)."""

    def __init__(
        self,
        sites: dict[int, tuple[int, int, int]],
        dim: int = 192,
        depth: int = 12,
        heads: int = 3,
        classes: int = 1000,
    ) -> None:
        super().__init__()
        self.patch_embed = PatchEmbed(dim, 16)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, dim))
        self.pos_embed = nn.Parameter(torch.zeros(1, 197, dim))
        self.blocks = nn.Sequential(*(Block(dim, heads, sites.get(i)) for i in range(depth)))
        self.norm = nn.LayerNorm(dim, eps=1e-6)
        self.head = nn.Linear(dim, classes)

    def forward(self, images: Tensor) -> Tensor:
        """(B, 3, 224, 224) to logits (B, classes)."""
        x = self.patch_embed(images)
        x = torch.cat([self.cls_token.expand(len(x), -1, -1), x], dim=1) + self.pos_embed
        return self.head(self.norm(self.blocks(x))[:, 0])


if __name__ == "__main__":
    # keep rate 0.7: 196 -> 138 -> 97 -> 68 tokens; (attentive, pairs, centres) after blocks 4, 7,
    # 10
    model = VisionTransformer({3: (107, 10, 41), 6: (75, 7, 29), 9: (53, 5, 20)}).eval()
    with torch.no_grad():
        print(model(torch.randn(2, 3, 224, 224)).shape)
