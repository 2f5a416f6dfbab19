"""What became of each patch, as a picture: pure functions."""

import math
from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Int
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from batvit.inspection.panel import paint, patch_means
from batvit.inspection.tracing import SiteTrace, Trace

# sizes in pixels
PANEL = 336
SMALLEST_PATCH = 16
HEADER = 66
SWATCH = 22
GAP = 14
LARGEST_FONT = 19
SMALLEST_FONT = 12
PAPER = (255, 255, 255)
INK = (20, 20, 20)
SAMPLE = (222.0, 150.0, 60.0)
"""the colour that the legend shows"""


def draw(image: Image.Image, trace: Trace, *, index: int = 0, title: str = "image") -> Image.Image:
    """Draw the paper's figure from real assignments: the image, then one panel a site, and a
    legend.

    In a panel every group of patches is filled with the mean colour of all its pixels, wherever in
    the image they are. Attentive groups have their full colour and dark borders; inattentive groups
    are faded, with white borders; pruned patches are empty and hatched. A border runs exactly where
    two groups meet. A patch is 16 pixels wide or more.

    Args:
        image: what the model saw, resized and cropped as for the model (see :func:`from_tensor`);
            any mode and size.
        trace: of a forward pass that this image was part of.
        index: which image of the batch it is, from 0.
        title: of the first panel, one line.

    Raises:
        TypeError: if the image is no image of Pillow's, or the trace no trace, as where the two are
            given in the other order.
        ValueError: if the trace is empty, the index is not in its batch, the model saw a part of
            the patches, or the image has another aspect ratio than the traced one (by more than 5
            %).

    Examples:
        >>> model = batvit.patch(timm.create_model("vit_tiny_patch16_224").eval(), keep_rate=0.5)
        >>> images = torch.randn(1, 3, 224, 224)
        >>> with batvit.trace(model) as trace:
        ...     logits = model(images)
        >>> seen = from_tensor(images[0], model.pretrained_cfg["mean"], model.pretrained_cfg["std"])
        >>> batvit.draw(seen, trace).save("groups.png")
    """
    return _with_legend(_strip(image, trace, index, title), trace)


def draw_many(images: Sequence[Image.Image], trace: Trace) -> Image.Image:
    """Draw one strip of :func:`draw` for each of the images 0, 1, … of the traced batch, one below
    the other.

    Raises:
        ValueError: if there is no image or more than the batch has, and as :func:`draw`.
    """
    if not images:
        raise ValueError("images is empty; give the first images of the traced batch")
    strips = [_strip(image, trace, i, f"image {i}") for i, image in enumerate(images)]
    width = max(strip.width for strip in strips)
    stack = Image.new("RGB", (width, len(strips) * strips[0].height), PAPER)
    for i, strip in enumerate(strips):
        stack.paste(strip, (0, i * strip.height))
    return _with_legend(stack, trace)


def from_tensor(image: Tensor, mean: Sequence[float], std: Sequence[float]) -> Image.Image:
    """Undo the normalisation of one image: the very crop that the model saw, if normalised in
    float32.

    Args:
        image: (3, H, W), floating point, ``(pixel / 255 - mean) / std``.
        mean, std: of each channel, as the normalisation had them.

    Raises:
        ValueError: if a shape, the type or a value is not as described.

    Examples:
        >>> from batvit.inspection.drawing import from_tensor
        >>> from_tensor(torch.zeros(3, 8, 8), mean=(0.5, 0.5, 0.5), std=(1, 1, 1)).getpixel((0, 0))
        (128, 128, 128)
    """
    if image.dim() != 3 or image.shape[0] != 3:
        raise ValueError(
            f"image must have shape (3, height, width), got {tuple(image.shape)}; "
            "of a batch give images[0]"
        )
    if not image.is_floating_point() or not bool(image.isfinite().all()):
        raise ValueError(
            f"image must hold finite floating-point values, got {image.dtype}; "
            "give what the model was given"
        )
    if len(mean) != 3 or len(std) != 3:
        raise ValueError(
            f"mean and std must be three numbers, one a channel, got {tuple(mean)} and {tuple(std)}"
        )
    scale = torch.tensor([float(value) for value in std], device="cpu").view(3, 1, 1)
    shift = torch.tensor([float(value) for value in mean], device="cpu").view(3, 1, 1)
    shares = image.detach().float().cpu() * scale + shift
    pixels = (shares * 255).round().clamp(0, 255).byte()
    return Image.fromarray(pixels.permute(1, 2, 0).contiguous().numpy())


# one image: a strip of panels


def _strip(image: Image.Image, trace: Trace, index: int, title: str) -> Image.Image:
    """Draw the image and its panels side by side."""
    _check(image, trace, index)
    rows, columns = trace.grid
    scale = max(SMALLEST_PATCH, math.ceil(PANEL / max(rows, columns)))
    image = _covered(image.convert("RGB"), trace)
    means = patch_means(image, trace.grid)
    titles = [f"{title}\n{rows * columns} patches ({rows} x {columns})"]
    panels = [image.resize((columns * scale, rows * scale))]
    for site in trace.sites:
        groups = site.origin.index[index].cpu().numpy().reshape(rows, columns)
        attentive = site.attentive[index].cpu().numpy().reshape(rows, columns)
        titles.append(_title(site, groups, trace.kind))
        panels.append(Image.fromarray(paint(means, groups, attentive, scale)))
    return _side_by_side(titles, panels)


def _check(image: Image.Image, trace: Trace, index: int) -> None:
    """Refuse a trace or an image that :func:`draw` cannot take."""
    if not isinstance(image, Image.Image) or not isinstance(trace, Trace):
        raise TypeError(
            "draw takes a PIL image, then a trace: batvit.draw(image, trace); "
            f"got {type(image).__name__}, then {type(trace).__name__}"
        )
    if not trace.sites:
        raise ValueError(
            "the trace has no sites; run the patched model inside the with block of batvit.trace, "
            "then draw"
        )
    batch = trace.sites[0].origin.batch
    if not 0 <= index < batch:
        raise ValueError(
            f"image {index} is not in the traced batch of {batch}; "
            f"give an index in 0 .. {batch - 1}"
        )
    seen = trace.sites[0].origin.tokens
    rows, columns = trace.grid
    if seen != rows * columns:
        raise ValueError(
            f"the model saw {seen} of {rows} x {columns} patches; it must see all: "
            "call model.eval(), or set mask_ratio=0"
        )
    height, width = trace.image_size or trace.grid
    ratio = (image.width / image.height) / (width / height)
    if max(ratio, 1 / ratio) > 1.05:
        raise ValueError(
            f"the image is {image.width} x {image.height} (width x height), the model saw "
            f"{width} x {height}; pass the crop that the model saw, "
            "as batvit.inspection.drawing.from_tensor makes it"
        )


def _covered(image: Image.Image, trace: Trace) -> Image.Image:
    """Crop an image to what is in patches; black where they reach beyond it."""
    height, width = trace.image_size or trace.grid
    rows, columns = trace.covered
    right = round(image.width * columns / width)
    bottom = round(image.height * rows / height)
    return image.crop((0, 0, right, bottom))


def _title(site: SiteTrace, groups: Int[np.ndarray, "rows columns"], kind: str) -> str:
    """Return the two lines above a panel: how many tokens are left, and of what kinds."""
    counts = site.counts
    pruned = int((groups < 0).sum())
    kinds = []
    if counts.attentive > counts.pairs:
        kinds.append(f"{counts.attentive - counts.pairs} {kind}")
    if counts.centres:
        kinds.append(_counted(counts.centres, "cluster"))
    if pruned:
        kinds.append(f"{pruned} pruned")
    left = _counted(counts.tokens_out, "token")
    return f"after block {counts.block}: {left}\n{', '.join(kinds)}"


def _counted(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


# texts around the panels


def _side_by_side(titles: Sequence[str], panels: Sequence[Image.Image]) -> Image.Image:
    """Put each panel below its title of two lines, in columns wide enough for both."""
    width, height = panels[0].size
    lines = [line for title in titles for line in title.split("\n")]
    font, length = _font(lines, width)
    step = max(width, length) + GAP
    strip = Image.new("RGB", (GAP + len(panels) * step, HEADER + height), PAPER)
    left = GAP
    for title, panel in zip(titles, panels, strict=True):
        where = (left, HEADER - GAP // 2)
        ImageDraw.Draw(strip).text(where, title, fill=INK, font=font, anchor="ld", spacing=6)
        strip.paste(panel, (left, HEADER))
        left += step
    return strip


def _with_legend(picture: Image.Image, trace: Trace) -> Image.Image:
    """Add a line below that explains the fills and borders that occur."""
    entries = _legend(trace)
    swatches = GAP + len(entries) * (SWATCH + 2 * GAP)
    font, text_width = _font(["".join(text for text, _ in entries)], picture.width - swatches)
    size = (max(picture.width, swatches + text_width), picture.height + SWATCH + 2 * GAP)
    result = Image.new("RGB", size, PAPER)
    result.paste(picture)
    left = GAP
    top = picture.height + GAP
    for text, swatch in entries:
        result.paste(swatch, (left, top))
        where = (left + SWATCH + GAP // 2, top + SWATCH // 2)
        ImageDraw.Draw(result).text(where, text, fill=INK, font=font, anchor="lm")
        left += SWATCH + 2 * GAP + math.ceil(font.getlength(text))
    return result


def _legend(trace: Trace) -> list[tuple[str, Image.Image]]:
    """Return text and swatch of each kind of patch that occurs anywhere in a trace."""
    kept = torch.cat([site.origin.kept for site in trace.sites])
    attentive = torch.cat([site.attentive for site in trace.sites])
    entries = []
    if attentive.any():
        entries.append((f"{trace.kind}: full colour, dark border", _swatch([0, 1], attentive=True)))
    if (kept & ~attentive).any():
        entries.append(("inattentive: faded, white border", _swatch([0, 1], attentive=False)))
    if (~kept).any():
        entries.append(("pruned: empty", _swatch([-1, -1], attentive=False)))
    return entries


def _swatch(groups: Sequence[int], *, attentive: bool) -> Image.Image:
    """Paint two rows of patches, each row a group."""
    means = np.full((2, 2, 3), SAMPLE)
    rows = np.array(groups)[:, None].repeat(2, axis=1)
    return Image.fromarray(paint(means, rows, np.full((2, 2), attentive), SWATCH // 2))


def _font(
    lines: Sequence[str], width: int
) -> tuple[ImageFont.FreeTypeFont | ImageFont.ImageFont, int]:
    """Return the largest font in which every line fits the width, or else the smallest.

    Returns:
        The font, and the length of the longest line in it.
    """
    for size in range(LARGEST_FONT, SMALLEST_FONT - 1, -1):
        font = ImageFont.load_default(size)
        length = math.ceil(max(font.getlength(line) for line in lines))
        if length <= width:
            break
    return font, length
