"""The pixels of one panel: groups of patches as colours and borders."""

import numpy as np
from jaxtyping import Bool, Float, Int, UInt8
from PIL import Image

# a border is drawn inside each of the patches that it separates, in the grey of that patch's kind
ATTENTIVE_BORDER = 0
INATTENTIVE_BORDER = 255
BORDER_ON_DARK = 130
DARK = 50
"""below this mean a colour is dark"""
# what black and white become in an inattentive group
FADED_BLACK = 140
FADED_WHITE = 244
# pruned patches: lines of one grey, so many pixels apart, on another
EMPTY = 255
HATCH = 170
HATCH_STEP = 6


def patch_means(image: Image.Image, grid: tuple[int, int]) -> Float[np.ndarray, "rows columns 3"]:
    """Return the mean colour of each patch."""
    rows, columns = grid
    height = max(1, round(image.height / rows))
    width = max(1, round(image.width / columns))
    # nothing is resampled where the patches have whole pixels
    if image.size != (columns * width, rows * height):
        image = image.resize((columns * width, rows * height))
    pixels = np.asarray(image, dtype=np.float64).reshape(rows, height, columns, width, 3)
    return np.asarray(pixels.mean(axis=(1, 3)))


def paint(
    means: Float[np.ndarray, "rows columns 3"],
    groups: Int[np.ndarray, "rows columns"],
    attentive: Bool[np.ndarray, "rows columns"],
    scale: int,
) -> UInt8[np.ndarray, "height width 3"]:
    """Paint groups of patches (-1 for pruned) as colours and borders, ``scale`` pixels a patch."""
    colours = _group_colours(means, groups)
    dark = colours.mean(axis=-1) < DARK
    attentive_borders = np.where(dark, BORDER_ON_DARK, ATTENTIVE_BORDER)
    borders = np.where(attentive, attentive_borders, INATTENTIVE_BORDER)
    faded = FADED_BLACK + (FADED_WHITE - FADED_BLACK) / 255 * colours
    colours = np.where(attentive[..., None], colours, faded).round()

    # from patches to pixels
    colours = _enlarged(colours, scale)
    borders = _enlarged(borders, scale)
    groups = _enlarged(groups, scale)
    on_hatch = np.indices(groups.shape).sum(axis=0) % HATCH_STEP == 0
    hatched = np.where(on_hatch, HATCH, EMPTY)
    colours = np.where((groups < 0)[..., None], hatched[..., None], colours)
    return np.where(_on_border(groups)[..., None], borders[..., None], colours).astype(np.uint8)


def _group_colours(
    means: Float[np.ndarray, "rows columns 3"], groups: Int[np.ndarray, "rows columns"]
) -> Float[np.ndarray, "rows columns 3"]:
    """Return the mean colour of its group for each patch."""
    # pruned patches are the first group
    number = groups + 1
    sums = np.zeros((number.max() + 1, 3))
    np.add.at(sums, number, means)
    sizes = np.bincount(number.ravel(), minlength=len(sums)).clip(min=1)
    return np.asarray((sums / sizes[:, None])[number])


def _enlarged(patches: np.ndarray, scale: int) -> np.ndarray:
    """Repeat each patch over ``scale`` x ``scale`` pixels."""
    return patches.repeat(scale, axis=0).repeat(scale, axis=1)


def _on_border(groups: Int[np.ndarray, "height width"]) -> Bool[np.ndarray, "height width"]:
    """Return which pixels have one above, below, left or right of them that is of another group."""
    around = np.pad(groups, 1, mode="edge")
    above = around[:-2, 1:-1]
    below = around[2:, 1:-1]
    left = around[1:-1, :-2]
    right = around[1:-1, 2:]
    return np.asarray((np.stack([above, below, left, right]) != groups).any(axis=0))
