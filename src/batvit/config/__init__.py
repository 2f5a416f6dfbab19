"""How a model is reduced: one frozen value, and its named presets.

- ``config``: :class:`BATConfig`, and what it refuses.
- ``presets``: ``paper``, ``training-free`` and ``gradual``, and the paper's counts.
"""

from batvit.config.config import BATConfig

__all__ = ["BATConfig"]
