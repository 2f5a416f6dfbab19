"""What a model costs, block by block: the table of tokens and MACs."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from torch import nn

from batvit.backbones.patch import schedule_of, unpatch
from batvit.backbones.registry import anatomy_of
from batvit.measure.macs import count_macs, count_parameters
from batvit.module_copy import on_meta
from batvit.plans import PLANS
from batvit.reduction.site import config_of

HEAD = ("block", "tokens in", "attentive", "pairs", "clusters", "tokens out", "M MACs")


@dataclass(frozen=True)
class BlockInfo:
    """One block; tokens are image tokens, without prefix.

    ``attentive``, ``pairs`` and ``clusters`` are None where nothing is reduced, or by a plan that
    knows no such parts.
    """

    block: int
    tokens_in: int
    attentive: int | None
    pairs: int | None
    clusters: int | None
    """of inattentive tokens: what :class:`batvit.BATConfig` sets by ``centres``"""
    tokens_out: int
    """0 of a last block that lets prefix tokens alone go on"""
    macs: int

    @property
    def cells(self) -> tuple[str, ...]:
        """Its row of the table; empty where there is no number."""
        numbers = (
            self.block,
            self.tokens_in,
            self.attentive,
            self.pairs,
            self.clusters,
            self.tokens_out,
        )
        cells = ["" if number is None else str(number) for number in numbers]
        return (*cells, f"{self.macs / 1e6:.1f}")


@dataclass(frozen=True)
class Info:
    """A model, reduced or not, at one image size.

    Examples:
        As in the example of :func:`info`:

        >>> info.blocks[1].tokens_in, info.blocks[1].tokens_out
        (196, 95)
        >>> round(info.mac_ratio, 2)
        1.71
    """

    model: str
    img_size: tuple[int, int]
    param_count: int
    prefix_tokens: int
    blocks: tuple[BlockInfo, ...]
    macs: int
    dense_macs: int
    config: dict[str, Any] | None

    @property
    def mac_ratio(self) -> float:
        """Dense MACs over reduced MACs."""
        return self.dense_macs / self.macs

    def to_dict(self) -> dict[str, Any]:
        """Return plain values with timm's names, MACs in units of 1e9."""
        fields = asdict(self)
        fields["gmacs"] = fields.pop("macs") / 1e9
        fields["dense_gmacs"] = fields.pop("dense_macs") / 1e9
        fields["mac_ratio"] = self.mac_ratio
        return fields

    def __str__(self) -> str:
        return "\n".join([*_aligned([HEAD, *(block.cells for block in self.blocks)]), self.summary])

    @property
    def summary(self) -> str:
        """The totals in one line."""
        height, width = self.img_size
        change = 100 * (self.macs / self.dense_macs - 1)
        return (
            f"{self.model} at {height} x {width}: {self.param_count:,} parameters, "
            f"{self.macs / 1e9:.4f} G MACs of {self.dense_macs / 1e9:.4f} G dense "
            f"({change:+.1f} %){self._alignment}"
        )

    @property
    def _alignment(self) -> str:
        # tokens that are given are taken as they are
        if self.config is None or self.config["keep_rate"] is None or self.config["align"] == 1:
            return ""
        align = self.config["align"]
        return f"; tokens and prefix in multiples of {align} where that changes little"


def info(
    model: nn.Module, *, image_size: tuple[int, int] | None = None, name: str | None = None
) -> Info:
    """Count tokens and MACs of every block of a supported model, patched or not.

    Args:
        model: a model of :func:`batvit.supported`.
        image_size: (height, width) in pixels; the model's own by default.
        name: what to call it; the class name by default.

    Raises:
        TypeError: if the model is not supported.
        ValueError: if it takes images of one size only, and not of this.

    Examples:
        >>> model = timm.create_model("vit_tiny_patch16_224", depth=4)
        >>> info = batvit.info(batvit.patch(model, keep_rate=0.5))
        >>> print(info)  # doctest: +ELLIPSIS
        block  tokens in  attentive  pairs  clusters  tokens out  M MACs
            0        196                                     196   102.0
            1        196         52      5        48          95    76.4
            2         95         25      2        24          47    32.8
            3         47         12      1        12          23    15.3
        VisionTransformer at 224 x 224: 2,158,504 parameters, 0.2557 G MACs of 0.4373 G dense ...
    """
    anatomy = anatomy_of(model, image_size)
    config = config_of(model)
    shape = (anatomy.channels, *anatomy.image_size)
    macs = count_macs(anatomy.tower, shape, **anatomy.arguments)
    dense_macs = macs
    if config is not None:
        dense_macs = count_macs(unpatch(on_meta(anatomy.tower)), shape, **anatomy.arguments)
    return Info(
        model=name or anatomy.name,
        img_size=anatomy.image_size,
        param_count=count_parameters(anatomy.tower),
        prefix_tokens=anatomy.prefix,
        blocks=_blocks(model, image_size, macs),
        macs=macs[""],
        dense_macs=dense_macs[""],
        config=None if config is None else config.to_dict(),
    )


def _blocks(
    model: nn.Module, image_size: tuple[int, int] | None, macs: dict[str, int]
) -> tuple[BlockInfo, ...]:
    """Return one entry a block, given the MACs of every module by its name."""
    anatomy = anatomy_of(model, image_size)
    config = config_of(model)
    has_parts = config is not None and PLANS[config.method].split is not None
    sites = {counts.block: counts for counts in schedule_of(model, image_size)}
    blocks = []
    tokens_in = anatomy.patches
    for i in range(anatomy.depth):
        tokens_out = tokens_in
        parts: tuple[int | None, int | None, int | None] = (None, None, None)
        if i in sites:
            counts = sites[i]
            tokens_out = counts.tokens_out
            if has_parts:
                parts = (counts.attentive, counts.pairs, counts.centres)
        if getattr(anatomy.blocks[i], "output_form", None) == "prefix":
            tokens_out = 0
        blocks.append(BlockInfo(i, tokens_in, *parts, tokens_out, macs[anatomy.name_of(i)]))
        tokens_in = tokens_out
    return tuple(blocks)


def _aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    """Return a line a row, the columns as wide as they need and flush right."""
    widths = [max(len(cell) for cell in column) for column in zip(*rows, strict=True)]
    lines = []
    for row in rows:
        cells = [cell.rjust(width) for cell, width in zip(row, widths, strict=True)]
        lines.append("  ".join(cells))
    return lines
