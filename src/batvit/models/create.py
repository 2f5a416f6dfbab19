"""A model by its timm name, with weights from a file or from timm's hub."""

import difflib
import importlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import timm
from torch import nn

from batvit.models.classifier_head import replace_head
from batvit.storage.files import first_line
from batvit.storage.weights import load_state, misshapen_key, read_weights

LIKENESS = 0.6
"""of two names, above which one may be meant by the other"""


def create_model(
    name: str,
    *,
    checkpoint: str | Path | None = None,
    pretrained: bool = False,
    num_classes: int | None = None,
    image_size: tuple[int, int] | None = None,
    drop_path: float = 0.0,
) -> nn.Module:
    """Make a timm model, with weights from a local file or, if asked, from timm's hub.

    Args:
        name: as ``timm.create_model`` takes it.
        checkpoint: a ``.safetensors`` or ``.pth`` file; no download then.
        pretrained: have timm download its weights, if there is no checkpoint.
        num_classes: classes of the head, if not the model's own.
        image_size: (height, width) in pixels, if not the model's own; position embeddings are
            resampled.
        drop_path: the rate of stochastic depth, for training.

    Raises:
        ValueError: if the model is unknown, or the file is no checkpoint or not one of this model.
        OSError: if the file is missing or the download fails.
    """
    _check_name(name)
    if num_classes is not None and num_classes < 0:
        raise ValueError(
            f"num_classes must be 1 or more, or 0 for a model without a head, got {num_classes}"
        )
    options: dict[str, Any] = {}
    if num_classes is not None:
        options["num_classes"] = num_classes
    if drop_path:
        options["drop_path_rate"] = drop_path
    if checkpoint is None:
        model = _build(name, pretrained, options)
        if image_size is not None:
            _resize(model, name, image_size)
        return model
    state = read_weights(checkpoint)
    model = _build(name, False, options)
    # weights fine-tuned at that size need it before, others are resampled to it after
    resize_first = misshapen_key(model, state) is not None
    if image_size is not None and resize_first:
        _resize(model, name, image_size)
    load_state(model, state, Path(checkpoint))
    if image_size is not None and not resize_first:
        _resize(model, name, image_size)
    return model


class WithHead(NamedTuple):
    """A model that has a head for some classes."""

    model: Any
    note: str | None
    """what became of the head of its weights; None if it is kept"""


def create_with_head(
    name: str,
    class_names: Sequence[str] | None,
    *,
    num_classes: int | None = None,
    checkpoint: str | Path | None = None,
    pretrained: bool = False,
    image_size: tuple[int, int] | None = None,
    drop_path: float = 0.0,
) -> WithHead:
    """Make a timm model with a head for the classes of some pictures.

    It is the head of its weights if that fits, else a new one on the same trunk.

    Args:
        name: as ``timm.create_model`` takes it.
        class_names: in label order; None where they are not known.
        num_classes: how many classes there are where their names are not known. Else of the head
            that the weights have, if that is not the model's own.
        checkpoint, pretrained, image_size, drop_path: as in :func:`create_model`.

    Raises:
        ValueError, OSError: as :func:`create_model`.
    """
    wanted = num_classes if class_names is None else len(class_names)
    before = None if class_names is None else num_classes

    def create(classes: int | None) -> Any:
        return create_model(
            name,
            checkpoint=checkpoint,
            pretrained=pretrained,
            num_classes=classes,
            image_size=image_size,
            drop_path=drop_path,
        )

    # weights to download hold their own head
    if checkpoint is None and pretrained:
        model = create(before)
    else:
        try:
            model = create(wanted)
        except ValueError:
            # a file may hold the head that is wanted, or another one
            if checkpoint is None or wanted == before:
                raise
            model = create(before)
    if wanted is None or model.num_classes == wanted:
        return WithHead(model, None)
    return WithHead(model, replace_head(model, wanted, class_names))


def _check_name(name: str) -> None:
    """Refuse a name that timm does not know, of a model or of its weights."""
    architecture, _, tag = name.partition(".")
    # a model of a hub, such as hf-hub:timm/…
    if "/" in name:
        return
    if not timm.is_model(architecture):
        # it puts its own models into timm's registry
        importlib.import_module("batvit.models")
    if not timm.is_model(architecture):
        near = _near_names(architecture)
        remedy = f"did you mean {', '.join(near)}?" if near else "see timm.list_models()"
        raise ValueError(f"unknown model {name!r}; {remedy}")
    tagged = timm.list_pretrained(f"{architecture}.*") if tag else [name]
    if name not in tagged:
        raise ValueError(
            f"unknown weights {name!r}; there are {', '.join(tagged) or 'none of this model'}"
        )


def _near_names(architecture: str) -> list[str]:
    """Return up to three names of dense models that are like a name, the likest first."""
    if not architecture:
        return []
    likeness: dict[str, float] = {}
    for model in timm.list_models():
        if not model.startswith("bat_"):
            # only as much of a name as was typed, or the shortest names would look nearest
            begin = model[: len(architecture)]
            likeness[model] = difflib.SequenceMatcher(None, architecture, begin).ratio()
    likest = sorted(likeness, key=lambda model: -likeness[model])[:3]
    return [model for model in likest if likeness[model] > LIKENESS]


def _build(name: str, pretrained: bool, options: dict[str, Any]) -> nn.Module:
    """Have timm make a model; where a download fails, say what else can be given."""
    try:
        return timm.create_model(name, pretrained=pretrained, **options)
    except Exception as error:
        reason = first_line(error)
        if pretrained:
            raise OSError(
                f"no pretrained weights of {name} could be had ({reason}); give checkpoint=FILE"
            ) from error
        if "/" in name:
            raise OSError(
                f"{name} could not be had ({reason}); give the name of a timm model"
            ) from error
        raise


def _resize(model: Any, name: str, image_size: tuple[int, int]) -> None:
    """Have a model take images of another size."""
    wanted = f"{image_size[0]} x {image_size[1]} pixels"
    if not hasattr(model, "set_input_size"):
        raise ValueError(f"{name} cannot change its image size to {wanted}")
    height, width = getattr(getattr(model, "patch_embed", None), "patch_size", (1, 1))
    if image_size[0] % height or image_size[1] % width:
        raise ValueError(
            f"{wanted} cannot be cut into the {height} x {width} patches of {name}; "
            "give multiples of them"
        )
    model.set_input_size(image_size)
