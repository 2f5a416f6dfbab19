"""Models of transformers that were saved while they were patched."""

from pathlib import Path
from typing import Any

from torch import nn

from batvit.backbones.patch import patch
from batvit.backbones.transformers_card import saved_reduction
from batvit.backbones.transformers_notice import quiet
from batvit.config import BATConfig

LOCATION_ARGUMENTS = (
    "cache_dir",
    "force_download",
    "local_files_only",
    "revision",
    "subfolder",
    "token",
)
"""those arguments of ``from_pretrained`` that say where a model is found"""


def load(folder: str | Path, **arguments: Any) -> nn.Module:
    """Load a model that ``save_pretrained`` or ``Trainer`` wrote while it was patched.

    It is patched again. The weights are those of the dense model: ``from_pretrained`` loads them as
    ever. What batvit added is one entry, ``batvit``, of ``config.json``; it stays there until
    :func:`batvit.unpatch`, so a dense model that ``from_pretrained`` made of such a folder, and
    that is saved again, still tells of it.

    Args:
        folder: what ``save_pretrained`` was given, or a name on the hub.
        arguments: of the model's ``from_pretrained``, such as ``dtype`` or ``attn_implementation``.

    Returns:
        The model, in eval mode, of the class that was saved.

    Raises:
        ValueError: if no BAT configuration was saved there, or one that is not valid; if the class
            is none of transformers'.
        OSError: if there is no such model.

    Examples:
        >>> from transformers import ViTConfig, ViTForImageClassification
        >>> config = ViTConfig(image_size=32, hidden_size=48, num_attention_heads=3)
        >>> model = batvit.patch(ViTForImageClassification(config), keep_rate=0.6)
        >>> model.save_pretrained("vit")
        >>> batvit.config_of(batvit.load("vit")).keep_rate
        0.6
    """
    import transformers

    location = {name: arguments[name] for name in LOCATION_ARGUMENTS if name in arguments}
    config = transformers.AutoConfig.from_pretrained(folder, **location)
    fields = saved_reduction(config)
    if fields is None:
        raise ValueError(
            f"{folder}: its config.json holds no BAT configuration; "
            "load it with from_pretrained, then call batvit.patch"
        )
    try:
        reduction = BATConfig.from_dict(fields)
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"{folder}: the BAT configuration in its config.json is not valid: {error}"
        ) from error
    names = config.architectures or ["none"]
    kind = getattr(transformers, names[0], None)
    if not (isinstance(kind, type) and issubclass(kind, transformers.PreTrainedModel)):
        raise ValueError(
            f"{folder}: the class of this model is {names[0]}, which transformers does not have"
        )
    with quiet():
        model: nn.Module = kind.from_pretrained(folder, **arguments)
    return patch(model, reduction)
