"""What a model costs, block by block: the figure's table."""

from dataclasses import asdict, dataclass
from typing import Any

from torch import nn

from batvit.backbones.patch import schedule_of, unpatch
from batvit.backbones.registry import anatomy_of
from batvit.measure.macs import count_macs, count_parameters
from batvit.module_copy import on_meta
from batvit.reduction.site import config_of


@dataclass(frozen=True)
class BlockInfo:
    """One block; token counts are of image tokens, without prefix. None goes out of the last one if prefix tokens alone do."""

    block: int
    tokens_in: int
    attentive: int | None
    pairs: int | None
    clusters: int | None
    tokens_out: int
    macs: int


@dataclass(frozen=True)
class Info:
    """A model, reduced or not, at one image size."""

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
        """Plain values with timm's names, MACs in units of 1e9."""
        fields = asdict(self)
        fields["gmacs"], fields["dense_gmacs"] = (
            fields.pop("macs") / 1e9,
            fields.pop("dense_macs") / 1e9,
        )
        return fields | {"mac_ratio": self.mac_ratio}

    def __str__(self) -> str:
        head = ("block", "tokens in", "attentive", "pairs", "clusters", "tokens out", "M MACs")
        rows = [
            (
                b.block,
                b.tokens_in,
                *("" if v is None else v for v in (b.attentive, b.pairs, b.clusters)),
                b.tokens_out,
                f"{b.macs / 1e6:.1f}",
            )
            for b in self.blocks
        ]
        widths = [max(len(str(row[i])) for row in (head, *rows)) for i in range(len(head))]
        lines = [
            "  ".join(str(cell).rjust(width) for cell, width in zip(row, widths, strict=True))
            for row in (head, *rows)
        ]
        return "\n".join(lines) + "\n" + self.summary

    @property
    def summary(self) -> str:
        """The totals in one line."""
        height, width = self.img_size
        return (
            f"{self.model} at {height} x {width}: {self.param_count:,} parameters, {self.macs / 1e9:.4f} G MACs of "
            f"{self.dense_macs / 1e9:.4f} G dense ({100 * (self.macs / self.dense_macs - 1):+.1f} %){self._alignment}"
        )

    @property
    def _alignment(self) -> str:
        align = (
            1 if self.config is None or self.config["keep_rate"] is None else self.config["align"]
        )
        return (
            f"; tokens and prefix in multiples of {align} where that changes little"
            if align > 1
            else ""
        )


def info(
    model: nn.Module, *, image_size: tuple[int, int] | None = None, name: str | None = None
) -> Info:
    """Tokens and MACs of every block of a supported model, patched or not.

    Args:
        model: a model of :func:`batvit.supported`.
        image_size: (height, width) in pixels; the model's own by default.
        name: what to call it; the class name by default.

    Raises:
        TypeError: if the model is not supported.
        ValueError: if it takes images of one size only, and not of this.
    """
    anatomy = anatomy_of(model, image_size)
    tower, size = anatomy.tower, anatomy.image_size
    config = config_of(model)
    sites = {counts.block: counts for counts in schedule_of(model, image_size)}
    shape = (anatomy.channels, *size)
    macs = count_macs(tower, shape, **anatomy.arguments)
    dense = (
        macs if config is None else count_macs(unpatch(on_meta(tower)), shape, **anatomy.arguments)
    )
    blocks, tokens = [], anatomy.patches
    for i in range(anatomy.depth):
        site = sites.get(i)
        out = site.tokens_out if site else tokens
        if getattr(anatomy.blocks[i], "output_form", None) == "prefix":
            out = 0
        told = site is not None and config is not None and config.method == "bat"
        attentive, pairs, clusters = (
            (site.attentive, site.pairs, site.centres) if site and told else (None, None, None)
        )
        blocks.append(
            BlockInfo(i, tokens, attentive, pairs, clusters, out, macs[anatomy.name_of(i)])
        )
        tokens = out
    return Info(
        model=name or anatomy.name,
        img_size=size,
        param_count=count_parameters(tower),
        prefix_tokens=anatomy.prefix,
        blocks=tuple(blocks),
        macs=macs[""],
        dense_macs=dense[""],
        config=config.to_dict() if config else None,
    )
