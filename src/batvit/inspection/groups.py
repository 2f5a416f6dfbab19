"""The groups that a patched model makes of one picture, seen and told."""

from typing import NamedTuple

from PIL import Image
from torch import Tensor, nn

from batvit.data.loading import data_config
from batvit.inspection.drawing import draw, from_tensor
from batvit.inspection.tracing import Trace, trace
from batvit.measure.logits import finite_logits


class Groups(NamedTuple):
    """What became of each patch of a picture."""

    drawing: Image.Image
    """the picture, and a panel for each site, as :func:`batvit.draw` draws them"""
    trace: Trace


def groups_of(
    model: nn.Module, image: Tensor, *, most_sites: int | None = None, name: str = "the model"
) -> Groups:
    """Run a patched model on one picture, and draw what becomes of each patch.

    Args:
        model: put into eval mode.
        image: (1, 3, H, W), as :func:`batvit.data.loading.prepared` gives it.
        most_sites: draw the last site alone if there are more: it shows what the others led to.
        name: of the model, for errors.

    Raises:
        ValueError: if the model is not patched, or its logits are not finite.
    """
    settings = data_config(model)
    with trace(model) as traced:
        finite_logits(model, image, name=name)
    if most_sites is not None and len(traced.sites) > most_sites:
        traced.sites = traced.sites[-1:]
    seen = from_tensor(image[0], settings["mean"], settings["std"])
    return Groups(draw(seen, traced), traced)
