"""How a model is reduced: one frozen value, and its named presets.

- ``config``: :class:`BATConfig`, and what it refuses.
- ``choice``: which of a preset, a file, single fields and saved weights decides.
- ``field_help``: what the source says of each field, for help and documents.
- ``presets``: ``paper``, ``training-free`` and ``gradual``, and the paper's counts.

A new field goes into ``config``, with its check; the command line offers it by itself. A new preset
is one entry of ``presets.PRESETS``.
"""

from batvit.config.config import BATConfig

__all__ = ["BATConfig"]
