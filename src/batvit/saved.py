"""Models of transformers that were saved while they were patched."""

from pathlib import Path
from typing import Any

from torch import nn

from batvit.backbones.patch import patch
from batvit.config import BATConfig


def load(folder: str | Path, **arguments: Any) -> nn.Module:
    """Load a model of transformers that was patched when ``save_pretrained`` or ``Trainer`` wrote it, and patch it again.

    The weights are those of the dense model: ``from_pretrained`` loads them as ever. What batvit added is one entry,
    ``batvit``, of ``config.json``.

    Args:
        folder: what ``save_pretrained`` was given, or a name on the hub.
        arguments: of the model's ``from_pretrained``, such as ``dtype`` or ``attn_implementation``.

    Returns:
        The model, in eval mode, of the class that was saved.

    Raises:
        ValueError: if no BAT configuration was saved there, or one that is not valid; if the class is none of transformers'.
        OSError: if there is no such model.
    """
    import transformers

    config = transformers.AutoConfig.from_pretrained(folder)
    found = getattr(config, "batvit", None)
    if found is None:
        raise ValueError(
            f"{folder}: its config.json holds no BAT configuration; load it with from_pretrained, then call batvit.patch"
        )
    reduction = BATConfig.from_dict(found)
    names = config.architectures or ["none"]
    kind = getattr(transformers, names[0], None)
    if not (isinstance(kind, type) and issubclass(kind, transformers.PreTrainedModel)):
        raise ValueError(f"{folder}: the class of this model is {names[0]}, which transformers does not have")
    model: nn.Module = kind.from_pretrained(folder, **arguments)
    return patch(model, reduction)
