"""The configuration that a user's choices give: a preset, a file, single fields, saved weights."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from batvit.config.config import BATConfig
from batvit.config.presets import DEFAULT_MODE


class Choice(NamedTuple):
    """A configuration, and what its user should be told about where it comes from."""

    config: BATConfig
    note: str | None
    """of a configuration saved beside the weights: that it is used, or that it is not"""


def choose(given: Mapping[str, Any], checkpoint: str | Path | None = None) -> Choice:
    """Return the configuration of given choices, or, without any, that beside a checkpoint.

    Without either it is the default preset.

    Args:
        given: any of ``mode``, the name of a preset; ``config``, a file that
            :meth:`BATConfig.save` wrote; and fields of :class:`BATConfig`, which are set otherwise
            in either. A field that is given as None is set to None.
        checkpoint: weights, beside which a configuration may lie.

    Raises:
        ValueError, TypeError: if both a file and a preset are given, or a field is refused.
        OSError: if the file cannot be read.

    >>> choose({"mode": "paper", "keep_rate": 0.8}).config.keep_rate
    0.8
    """
    fields = dict(given)
    mode = fields.pop("mode", None)
    path = fields.pop("config", None)
    if path is not None:
        if mode is not None:
            raise ValueError(f"give config={path} or mode={mode}, not both")
        return Choice(BATConfig.load(path).with_fields(**fields), None)
    saved = None if checkpoint is None else BATConfig.beside(checkpoint)
    if checkpoint is None or saved is None:
        return Choice(BATConfig.preset(mode or DEFAULT_MODE, **fields), None)
    beside = BATConfig.path_beside(checkpoint)
    if mode is None and not fields:
        return Choice(saved, f"configuration from {beside}")
    note = f"reduction options are given, so {beside} is not used"
    return Choice(BATConfig.preset(mode or DEFAULT_MODE, **fields), note)
