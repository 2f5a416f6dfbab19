"""What became of each patch, as a picture: pure functions."""

import math
from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Bool, Float, Int, UInt8
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from batvit.inspection.tracing import SiteTrace, Trace

PANEL, SMALLEST_PATCH, HEADER, SWATCH, GAP = 336, 16, 66, 22, 14
LARGEST_FONT, SMALLEST_FONT = 19, 12
PAPER, INK = (255, 255, 255), (20, 20, 20)
# a border is drawn inside each of the patches that it separates, in the grey of that patch's kind
ATTENTIVE_BORDER, INATTENTIVE_BORDER, BORDER_ON_DARK, DARK = 0, 255, 130, 50
FADED_BLACK, FADED_WHITE, EMPTY, HATCH, HATCH_STEP = 140, 244, 255, 170, 6
SAMPLE = (222.0, 150.0, 60.0)


def draw(image: Image.Image, trace: Trace, *, index: int = 0, title: str = "image") -> Image.Image:
    """The paper's figure from real assignments: the image, then one panel a site, side by side, above a legend.

    In a panel every group of patches is filled with the mean colour of all its pixels, wherever in the image they are.
    Attentive groups have their full colour and dark borders; inattentive groups are faded, with white borders; pruned
    patches are empty and hatched. A border runs exactly where two groups meet. A patch is 16 pixels wide or more.

    Args:
        image: what the model saw, resized and cropped as for the model (see :func:`from_tensor`); any mode and size.
        trace: of a forward pass that this image was part of.
        index: which image of the batch it is, from 0.
        title: of the first panel, one line.

    Raises:
        ValueError: if the trace is empty, the index is not in its batch, the model saw a part of the patches, or the image has
            another aspect ratio than the traced one (by more than 5 %).
    """
    return _with_legend(_strip(image, trace, index, title), trace)


def draw_many(images: Sequence[Image.Image], trace: Trace) -> Image.Image:
    """One strip of :func:`draw` for each of the images 0, 1, … of the traced batch, one below the other.

    Raises:
        ValueError: if there is no image or more than the batch has, and as :func:`draw`.
    """
    if not images:
        raise ValueError("images is empty; give the first images of the traced batch")
    strips = [_strip(image, trace, i, f"image {i}") for i, image in enumerate(images)]
    stack = Image.new("RGB", (max(s.width for s in strips), len(strips) * strips[0].height), PAPER)
    for i, strip in enumerate(strips):
        stack.paste(strip, (0, i * strip.height))
    return _with_legend(stack, trace)


def from_tensor(image: Tensor, mean: Sequence[float], std: Sequence[float]) -> Image.Image:
    """Undo the normalisation of one image: the very crop that the model saw, exactly if normalised in float32.

    Args:
        image: (3, H, W), floating point, ``(pixel / 255 - mean) / std``.
        mean, std: of each channel, as the normalisation had them.

    Raises:
        ValueError: if a shape, the type or a value is not as described.
    """
    if image.dim() != 3 or image.shape[0] != 3:
        raise ValueError(
            f"image must have shape (3, height, width), got {tuple(image.shape)}; of a batch give images[0]"
        )
    if not image.is_floating_point() or not bool(image.isfinite().all()):
        raise ValueError(
            f"image must hold finite floating-point values, got {image.dtype}; give what the model was given"
        )
    if len(mean) != 3 or len(std) != 3:
        raise ValueError(
            f"mean and std must be three numbers, one a channel, got {tuple(mean)} and {tuple(std)}"
        )
    scale, shift = torch.tensor([[*map(float, each)] for each in (std, mean)], device="cpu").view(
        2, 3, 1, 1
    )
    pixels = image.detach().float().cpu() * scale + shift
    return Image.fromarray(
        (pixels * 255).round().clamp(0, 255).byte().permute(1, 2, 0).contiguous().numpy()
    )


def _strip(image: Image.Image, trace: Trace, index: int, title: str) -> Image.Image:
    _check(image, trace, index)
    rows, columns = trace.grid
    scale = max(SMALLEST_PATCH, math.ceil(PANEL / max(rows, columns)))
    image = _covered(image.convert("RGB"), trace)
    means = _patch_means(image, (rows, columns))
    panels = [
        (
            f"{title}\n{rows * columns} patches ({rows} x {columns})",
            image.resize((columns * scale, rows * scale)),
        )
    ]
    for site in trace.sites:
        groups, attentive = (
            each[index].cpu().numpy().reshape(rows, columns)
            for each in (site.origin.index, site.attentive)
        )
        panels.append(
            (
                _title(site, groups, trace.kind),
                Image.fromarray(_panel(means, groups, attentive, scale)),
            )
        )
    return _side_by_side(panels)


def _check(image: Image.Image, trace: Trace, index: int) -> None:
    if not trace.sites:
        raise ValueError(
            "the trace has no sites; run the patched model inside the with block of batvit.trace, then draw"
        )
    batch = trace.sites[0].origin.batch
    if not 0 <= index < batch:
        raise ValueError(
            f"image {index} is not in the traced batch of {batch}; give an index in 0 .. {batch - 1}"
        )
    patches, (rows, columns) = trace.sites[0].origin.tokens, trace.grid
    if patches != rows * columns:
        raise ValueError(
            f"the model saw {patches} of {rows} x {columns} patches; it must see all: call model.eval(), or set mask_ratio=0"
        )
    height, width = trace.image_size or trace.grid
    ratio = (image.width / image.height) / (width / height)
    if max(ratio, 1 / ratio) > 1.05:
        raise ValueError(
            f"the image is {image.width} x {image.height} (width x height), the model saw {width} x {height}; "
            "pass the crop that the model saw, as batvit.visualize.from_tensor makes it"
        )


def _covered(image: Image.Image, trace: Trace) -> Image.Image:
    """The part of an image that is in patches; black where they reach beyond it."""
    (height, width), (rows, columns) = trace.image_size or trace.grid, trace.covered
    return image.crop(
        (0, 0, round(image.width * columns / width), round(image.height * rows / height))
    )


def _patch_means(image: Image.Image, grid: tuple[int, int]) -> Float[np.ndarray, "rows columns 3"]:
    """Mean colour of each patch; the image is resized only if its sides are no multiples of the grid."""
    rows, columns = grid
    height, width = max(1, round(image.height / rows)), max(1, round(image.width / columns))
    if image.size != (columns * width, rows * height):
        image = image.resize((columns * width, rows * height))
    pixels = np.asarray(image, dtype=np.float64).reshape(rows, height, columns, width, 3)
    return np.asarray(pixels.mean(axis=(1, 3)))


def _panel(
    means: Float[np.ndarray, "rows columns 3"],
    groups: Int[np.ndarray, "rows columns"],
    attentive: Bool[np.ndarray, "rows columns"],
    scale: int,
) -> UInt8[np.ndarray, "height width 3"]:
    """Groups of patches (-1 for pruned) as colours and borders, ``scale`` pixels a patch."""
    sums = np.zeros((groups.max() + 2, 3))
    np.add.at(sums, groups + 1, means)
    sizes = np.bincount(groups.ravel() + 1, minlength=len(sums)).clip(min=1)
    colours = (sums / sizes[:, None])[groups + 1]
    on_dark = np.where(colours.mean(axis=-1) < DARK, BORDER_ON_DARK, ATTENTIVE_BORDER)
    borders = np.where(attentive, on_dark, INATTENTIVE_BORDER)
    colours = np.where(
        attentive[..., None], colours, FADED_BLACK + (FADED_WHITE - FADED_BLACK) / 255 * colours
    ).round()
    colours, borders, groups = (
        a.repeat(scale, axis=0).repeat(scale, axis=1) for a in (colours, borders, groups)
    )
    hatched = np.where(np.indices(groups.shape).sum(axis=0) % HATCH_STEP == 0, HATCH, EMPTY)
    colours = np.where((groups < 0)[..., None], hatched[..., None], colours)
    # a pixel is on a border if the one above, below, left or right of it is of another group
    around = np.pad(groups, 1, mode="edge")
    neighbours = np.stack(
        [around[:-2, 1:-1], around[2:, 1:-1], around[1:-1, :-2], around[1:-1, 2:]]
    )
    return np.where(
        (neighbours != groups).any(axis=0)[..., None], borders[..., None], colours
    ).astype(np.uint8)


def _title(site: SiteTrace, groups: Int[np.ndarray, "rows columns"], kind: str) -> str:
    block, _, attentive, pairs, centres, tokens = site.counts
    parts = (
        f"{attentive - pairs} {kind}",
        f"{centres} cluster{'s' * (centres != 1)}",
        f"{(groups < 0).sum()} pruned",
    )
    kinds = ", ".join(part for part in parts if not part.startswith("0 "))
    return f"after block {block}: {tokens} token{'s' * (tokens != 1)}\n{kinds}"


def _side_by_side(panels: Sequence[tuple[str, Image.Image]]) -> Image.Image:
    """Each picture below its title of two lines, in columns wide enough for both."""
    width, height = panels[0][1].size
    font, length = _font([line for title, _ in panels for line in title.split("\n")], width)
    step = max(width, length) + GAP
    strip = Image.new("RGB", (GAP + len(panels) * step, HEADER + height), PAPER)
    for i, (title, picture) in enumerate(panels):
        ImageDraw.Draw(strip).text(
            (GAP + i * step, HEADER - GAP // 2), title, fill=INK, font=font, anchor="ld", spacing=6
        )
        strip.paste(picture, (GAP + i * step, HEADER))
    return strip


def _with_legend(picture: Image.Image, trace: Trace) -> Image.Image:
    """Add a line that explains the fills and borders that occur."""
    kept, attentive = (
        torch.cat(m) for m in zip(*((s.origin.kept, s.attentive) for s in trace.sites), strict=True)
    )
    legend = (
        (f"{trace.kind}: full colour, dark border", [[0, 0], [1, 1]], True, attentive.any()),
        ("inattentive: faded, white border", [[0, 0], [1, 1]], False, (kept & ~attentive).any()),
        ("pruned: empty", [[-1, -1], [-1, -1]], False, (~kept).any()),
    )
    shown = [entry[:3] for entry in legend if entry[3]]
    swatches = GAP + len(shown) * (SWATCH + 2 * GAP)
    font, text_width = _font(["".join(text for text, *_ in shown)], picture.width - swatches)
    size = (max(picture.width, swatches + text_width), picture.height + SWATCH + 2 * GAP)
    result, left, top = Image.new("RGB", size, PAPER), GAP, picture.height + GAP
    result.paste(picture)
    for text, groups, bright in shown:
        swatch = _panel(
            np.full((2, 2, 3), SAMPLE), np.array(groups), np.full((2, 2), bright), SWATCH // 2
        )
        result.paste(Image.fromarray(swatch), (left, top))
        where = (left + SWATCH + GAP // 2, top + SWATCH // 2)
        ImageDraw.Draw(result).text(where, text, fill=INK, font=font, anchor="lm")
        left += SWATCH + 2 * GAP + math.ceil(font.getlength(text))
    return result


def _font(
    lines: Sequence[str], width: int
) -> tuple[ImageFont.FreeTypeFont | ImageFont.ImageFont, int]:
    """The largest font in which every line fits the width, or else the smallest; and the length of the longest line."""
    fonts = [ImageFont.load_default(size) for size in range(LARGEST_FONT, SMALLEST_FONT - 1, -1)]
    lengths = [math.ceil(max(font.getlength(line) for line in lines)) for font in fonts]
    chosen = next((i for i, length in enumerate(lengths) if length <= width), -1)
    return fonts[chosen], lengths[chosen]
