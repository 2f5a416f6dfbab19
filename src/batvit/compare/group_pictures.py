"""The groups of patches that each plan makes of some pictures, for the report."""

import io
from collections.abc import Sequence
from dataclasses import replace

import torch
from PIL import Image
from torch import nn

from batvit.backbones.patch import reduced_copy
from batvit.compare.failures import collect_errors
from batvit.compare.rows import Row
from batvit.data.folder import Pictures
from batvit.data.loading import loader
from batvit.inspection.groups import groups_of

# of more sites than these the last alone is shown
MOST_SITES = 4


@torch.inference_mode()
def draw_groups(
    dense: nn.Module, pictures: Pictures, rows: Sequence[Row], *, number: int
) -> tuple[list[tuple[str, bytes]], list[str]]:
    """Draw the groups of the plans at equal MACs, at the smallest target that any met.

    Args:
        dense: the dense model.
        pictures: of which the first are drawn.
        rows: of all targets.
        number: how many pictures.

    Returns:
        A title and a PNG for each picture and plan; and a sentence for each that cannot be drawn.
    """
    by_macs = [row for row in rows if row.key.group.at == "macs"]
    smallest = min((row.key.group.target for row in by_macs), default=0.0)
    drawn: list[tuple[str, bytes]] = []
    errors: dict[str, Exception] = {}
    few = replace(pictures, samples=pictures.samples[:number])
    for i, (image, _) in enumerate(loader(few, dense, batch_size=1)):
        for row in by_macs:
            if row.key.group.target == smallest and row.config is not None:
                title = f"picture {i + 1}: {row.plan}"
                with collect_errors(errors, title):
                    model = reduced_copy(dense, row.config)
                    groups = groups_of(model, image, most_sites=MOST_SITES)
                    drawn.append((title, _png(groups.drawing)))
    return drawn, [f"{title} is not drawn: {error}" for title, error in errors.items()]


def _png(picture: Image.Image) -> bytes:
    content = io.BytesIO()
    picture.save(content, "PNG")
    return content.getvalue()
