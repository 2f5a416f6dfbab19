"""What became of each patch, as a picture, and the diversity of the tokens, as curves: pure functions."""

import io
import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib as mpl
import numpy as np
import torch
from jaxtyping import Bool, Float, Int, UInt8
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from batvit.files import check_writable, write_atomic
from batvit.trace import SiteTrace, Trace

PICTURE_FORMATS = {".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG", ".webp": "WEBP"}
FIGURE_FORMATS = {".png": "png", ".svg": "svg", ".pdf": "pdf"}

PANEL, SMALLEST_PATCH, GAP = 336, 16, 14
LARGEST_FONT, SMALLEST_FONT = 19, 12
PAPER, INK = (255, 255, 255), (20, 20, 20)
# borders are drawn inside the patches they separate, each patch in the colour of its own kind
ATTENTIVE_BORDER, INATTENTIVE_BORDER = (255, 255, 255), (0, 0, 0)
EMPTY, HATCH, HATCH_STEP = (28, 28, 32), (84, 84, 92), 8
SAMPLE = (222, 150, 60)

# Okabe and Ito's colours, which stay apart for colour-blind readers; their yellow is too faint for a line on white
CURVE_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000")
CURVE_MARKERS = "osD^vP*X"


def draw(
    image: Image.Image, trace: Trace, *, index: int = 0, title: str = "image", patch_pixels: int | None = None
) -> Image.Image:
    """The paper's figure from real assignments: the image, then one panel a site, side by side, above a legend.

    In a panel every group of patches is filled with the mean colour of all its pixels, wherever in the image they are.
    Attentive groups have their full colour and white borders; inattentive groups are dimmed, with black borders; pruned
    patches are empty and hatched. A border runs exactly where two groups meet.

    Args:
        image: what the model saw, resized and cropped as for the model (see :func:`from_tensor`); any mode and size.
        trace: of a forward pass that this image was part of.
        index: which image of the batch it is, from 0.
        title: of the first panel.
        patch_pixels: side of a patch in pixels; by default the panels are about 336 pixels wide, a patch 16 or more.

    Returns:
        An RGB picture.

    Raises:
        ValueError: if the trace is empty, the index is not in its batch, the image has another aspect ratio than the
            traced one (by more than 5 %), or patch_pixels is too small.
    """
    return _with_legend(_strip(image, trace, index, title, patch_pixels), trace, 1)


def draw_many(images: Sequence[Image.Image], trace: Trace, *, patch_pixels: int | None = None) -> Image.Image:
    """One strip of :func:`draw` for each of the first images of a batch, one below the other, above one legend.

    Args:
        images: images 0, 1, … of the traced batch, as the model saw them.
        trace, patch_pixels: see :func:`draw`.

    Raises:
        ValueError: if there is no image or more than the batch has, and as :func:`draw`.
    """
    if not images:
        raise ValueError("there is no image to draw; give the first images of the traced batch")
    strips = [_strip(image, trace, i, f"image {i}", patch_pixels) for i, image in enumerate(images)]
    stack = Image.new("RGB", (max(s.width for s in strips), sum(s.height for s in strips)), PAPER)
    top = 0
    for strip in strips:
        stack.paste(strip, (0, top))
        top += strip.height
    return _with_legend(stack, trace, len(strips))


def from_tensor(image: Tensor, mean: Sequence[float], std: Sequence[float]) -> Image.Image:
    """Undo the normalisation of one image: the very crop that the model saw.

    Args:
        image: (3, H, W), floating point, ``(pixel / 255 - mean) / std``.
        mean, std: of each channel, as the normalisation had them.

    Returns:
        An RGB picture of H x W pixels; exactly the pixels that were normalised in float32.

    Raises:
        ValueError: if the shape, the type or a value is not as described.
    """
    if image.dim() != 3 or image.shape[0] != 3:
        raise ValueError(f"image must have shape (3, height, width), got {tuple(image.shape)}; of a batch give one, images[0]")
    if not image.is_floating_point() or not bool(image.isfinite().all()):
        raise ValueError(
            f"image must hold finite normalised values in floating point, got {image.dtype}; give the model's input"
        )
    for name, values in (("mean", mean), ("std", std)):
        if len(values) != 3 or not all(math.isfinite(v) for v in values):
            raise ValueError(f"{name} must be three numbers, one a channel, got {tuple(values)}")
    pixels = image.detach().float().cpu() * torch.tensor(std).view(3, 1, 1) + torch.tensor(mean).view(3, 1, 1)
    return Image.fromarray((pixels * 255).round().clamp(0, 255).byte().permute(1, 2, 0).contiguous().numpy())


def plot_diversity(curves: Mapping[str, Sequence[float]]) -> Figure:
    """Curves of :func:`batvit.trace.diversity_by_block`, one line a model.

    Args:
        curves: name of the model to r(X) after each block, block 0 first.

    Raises:
        ValueError: if there is no curve, or one is empty or not finite.
    """
    if not curves:
        raise ValueError('there is no curve to plot; give a name and values for each model, {"dense": [3.1, 2.9, …]}')
    for name, values in curves.items():
        if len(values) == 0 or not all(math.isfinite(v) for v in values):
            raise ValueError(f"curve {name!r} must be a finite number for each block, got {list(values)}")
    figure = Figure(figsize=(6.4, 4.2), dpi=150, layout="constrained")
    axes = figure.add_subplot()
    for i, (name, values) in enumerate(curves.items()):
        colour, marker = CURVE_COLOURS[i % len(CURVE_COLOURS)], CURVE_MARKERS[i % len(CURVE_MARKERS)]
        axes.plot(range(len(values)), list(values), color=colour, marker=marker, markersize=5, linewidth=1.8, label=name)
    axes.set_xlabel("block (from 0)", fontsize=12)
    axes.set_ylabel("diversity r(X)", fontsize=12)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_ylim(bottom=0)
    axes.grid(alpha=0.3)
    axes.legend(fontsize=11)
    return figure


def save(picture: Image.Image | Figure, path: str | Path) -> Path:
    """Write a picture or a figure, whole or not at all, in the format of the path's suffix.

    Args:
        picture: of :func:`draw` (.png, .jpg, .jpeg, .webp) or :func:`plot_diversity` (.png, .svg, .pdf).
        path: where to; the folder must exist.

    Raises:
        ValueError: if the suffix is none of these. OSError: if the path cannot be written. Both before any work.
    """
    formats = FIGURE_FORMATS if isinstance(picture, Figure) else PICTURE_FORMATS
    path = Path(path)
    if path.suffix.lower() not in formats:
        kind = "figure" if isinstance(picture, Figure) else "picture"
        raise ValueError(f"a {kind} is saved as {', '.join(formats)}, got {path.suffix!r} in {path}; change the suffix")
    name = formats[check_writable(path).suffix.lower()]
    content = io.BytesIO()
    if isinstance(picture, Figure):
        # no date and no random names, so that the same curves give the same bytes
        dates = {"svg": {"Date": None}, "pdf": {"CreationDate": None}}
        with mpl.rc_context({"svg.hashsalt": "batvit"}):
            picture.savefig(content, format=name, metadata=dates.get(name))
    elif name == "JPEG":
        picture.convert("RGB").save(content, name, quality=95, subsampling=0)
    else:
        picture.save(content, name, lossless=True)
    return write_atomic(path, content.getvalue())


def _strip(image: Image.Image, trace: Trace, index: int, title: str, patch_pixels: int | None) -> Image.Image:
    _check(image, trace, index, patch_pixels)
    rows, columns = trace.grid
    scale = patch_pixels or max(SMALLEST_PATCH, math.ceil(PANEL / max(rows, columns)))
    image = image.convert("RGB")
    means = _patch_means(image, (rows, columns))
    panels = [((title, f"{rows * columns} patches ({rows} x {columns})"), image.resize((columns * scale, rows * scale)))]
    for site in trace.sites:
        groups = site.origin.index[index].detach().cpu().numpy().reshape(rows, columns)
        attentive = site.attentive[index].detach().cpu().numpy().reshape(rows, columns)
        panels.append((_title(site, int((groups < 0).sum())), Image.fromarray(_panel(means, groups, attentive, scale))))
    return _side_by_side(panels)


def _check(image: Image.Image, trace: Trace, index: int, patch_pixels: int | None) -> None:
    if not trace.sites:
        raise ValueError("the trace has no sites; run the patched model inside the with block of batvit.trace, then draw")
    batch = trace.sites[0].origin.batch
    if not 0 <= index < batch:
        raise ValueError(f"index {index} is not in the traced batch of {batch}; give 0 .. {batch - 1}")
    height, width = trace.image_size or trace.grid
    ratio = (image.width / image.height) / (width / height)
    if max(ratio, 1 / ratio) > 1.05:
        raise ValueError(
            f"the image is {image.width} x {image.height} (width x height), the model saw {width} x {height}; "
            "pass the crop that the model saw, such as batvit.visualize.from_tensor gives it"
        )
    if patch_pixels is not None and patch_pixels < SMALLEST_PATCH // 2:
        raise ValueError(f"patch_pixels must be {SMALLEST_PATCH // 2} or more, for borders to be seen, got {patch_pixels}")


def _patch_means(image: Image.Image, grid: tuple[int, int]) -> Float[np.ndarray, "rows columns 3"]:
    """Mean colour of each patch; the image is resized only if its sides are no multiples of the grid."""
    rows, columns = grid
    height, width = (max(1, round(side / n)) for side, n in zip((image.height, image.width), grid, strict=True))
    if image.size != (columns * width, rows * height):
        image = image.resize((columns * width, rows * height))
    return np.asarray(image, dtype=np.float64).reshape(rows, height, columns, width, 3).mean(axis=(1, 3))


def _panel(
    means: Float[np.ndarray, "rows columns 3"],
    groups: Int[np.ndarray, "rows columns"],
    attentive: Bool[np.ndarray, "rows columns"],
    scale: int,
) -> UInt8[np.ndarray, "height width 3"]:
    """Groups of patches (-1 for pruned) as colours and borders, ``scale`` pixels a patch."""
    sums = np.zeros((groups.max() + 2, 3))
    np.add.at(sums, groups + 1, means)
    counts = np.bincount(groups.ravel() + 1, minlength=len(sums))[:, None]
    colours = (sums / counts.clip(min=1))[groups + 1]
    colours = np.where(attentive[..., None], colours, _dim(colours)).round().astype(np.uint8)
    colours, groups, attentive = (a.repeat(scale, 0).repeat(scale, 1) for a in (colours, groups, attentive))
    y, x = np.indices(groups.shape)
    hatched = np.where(((x + y) % HATCH_STEP < 1)[..., None], HATCH, EMPTY)
    colours = np.where(groups[..., None] < 0, hatched, colours)
    border = np.where(attentive[..., None], ATTENTIVE_BORDER, INATTENTIVE_BORDER)
    return np.where(_borders(groups)[..., None], border, colours).astype(np.uint8)


def _borders(groups: Int[np.ndarray, "height width"]) -> Bool[np.ndarray, "height width"]:
    """The pixels that touch a pixel of another group: a line of one pixel on either side."""
    border = np.zeros(groups.shape, dtype=bool)
    down, right = groups[1:] != groups[:-1], groups[:, 1:] != groups[:, :-1]
    border[1:] |= down
    border[:-1] |= down
    border[:, 1:] |= right
    border[:, :-1] |= right
    return border


def _dim(colours: Float[np.ndarray, "*shape 3"]) -> Float[np.ndarray, "*shape 3"]:
    """Darker and greyer, but never black, so that groups stay apart."""
    grey = colours.mean(axis=-1, keepdims=True)
    return 20 + 0.42 * (0.5 * colours + 0.5 * grey)


def _title(site: SiteTrace, pruned: int) -> tuple[str, str]:
    counts = site.counts
    parts = [f"{counts.attentive - counts.pairs} attentive"]
    if counts.centres:
        parts.append(_count(counts.centres, "cluster"))
    if pruned:
        parts.append(f"{_count(pruned, 'patch', 'patches')} pruned")
    return f"after block {counts.block}: {_count(counts.tokens_out, 'token')}", ", ".join(parts)


def _count(number: int, noun: str, plural: str | None = None) -> str:
    return f"{number} {noun if number == 1 else plural or noun + 's'}"


def _side_by_side(panels: Sequence[tuple[tuple[str, str], Image.Image]]) -> Image.Image:
    """Each picture below its title of two lines, in columns wide enough for both."""
    lines = [line for title, _ in panels for line in title]
    font, text_width = _font(lines, panels[0][1].width)
    width, height = max(panels[0][1].width, text_width), panels[0][1].height
    line = round(1.35 * font.size)
    strip = Image.new("RGB", (GAP + len(panels) * (width + GAP), GAP + 2 * line + height), PAPER)
    ink = ImageDraw.Draw(strip)
    for i, (title, picture) in enumerate(panels):
        left = GAP + i * (width + GAP)
        for j, text in enumerate(title):
            ink.text((left, GAP // 2 + j * line), text, fill=INK, font=font)
        strip.paste(picture, (left, GAP + 2 * line))
    return strip


def _with_legend(picture: Image.Image, trace: Trace, images: int) -> Image.Image:
    """Add a line that explains the fills and borders that occur in the first ``images`` images."""
    kept = torch.cat([site.origin.kept[:images] for site in trace.sites])
    attentive = torch.cat([site.attentive[:images] for site in trace.sites])
    legend = [
        ("attentive: full colour, white border", 0, True, bool(attentive.any())),
        ("inattentive, clustered: dimmed, black border", 0, False, bool((kept & ~attentive).any())),
        ("pruned: empty", -1, False, not bool(kept.all())),
    ]
    shown = [(text, group, bright) for text, group, bright, occurs in legend if occurs]
    swatch = round(1.2 * LARGEST_FONT)
    room = picture.width - GAP - len(shown) * (swatch + 2 * GAP)
    font, _ = _font(["".join(text for text, _, _ in shown)], room)
    result = Image.new("RGB", (picture.width, picture.height + swatch + 2 * GAP), PAPER)
    result.paste(picture, (0, 0))
    ink, left, top = ImageDraw.Draw(result), GAP, picture.height + GAP
    for text, group, bright in shown:
        result.paste(_swatch(group, bright, swatch), (left, top))
        ink.text((left + swatch + GAP // 2, top + swatch // 2), text, fill=INK, font=font, anchor="lm")
        left += swatch + 2 * GAP + math.ceil(font.getlength(text))
    return result


def _swatch(group: int, attentive: bool, side: int) -> Image.Image:
    """A small panel of two groups of one kind."""
    groups = np.array([[group, group], [min(group, 0) if group < 0 else 1] * 2])
    panel = _panel(np.full((2, 2, 3), SAMPLE, float), groups, np.full((2, 2), attentive), side // 2)
    return Image.fromarray(panel)


def _font(lines: Sequence[str], width: int) -> tuple[ImageFont.FreeTypeFont, int]:
    """The largest font in which every line fits the width, or the smallest; and the widest line in it."""
    for size in range(LARGEST_FONT, SMALLEST_FONT - 1, -1):
        font = ImageFont.load_default(size)
        assert isinstance(font, ImageFont.FreeTypeFont)
        widest = math.ceil(max(font.getlength(line) for line in lines))
        if widest <= width:
            break
    return font, widest
