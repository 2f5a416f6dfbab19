"""In timm's registry once this is imported: LV-ViT, which timm lacks, and ``bat_<name>`` for the models that it has.

- ``create``: a model by its name, with weights from a file or from timm's hub.
- ``lvvit``, ``lvvit_adapter``: the architecture that timm lacks, and what a patch needs to know of it.
- ``timm_registry``: ``bat_<name>`` models, reduced as they are made.
- ``supported``: which models can be reduced.
- ``__main__``: ``python -m batvit.models train.py …`` runs timm's own scripts with these models.
"""

from batvit.backbones.registry import register
from batvit.models import lvvit, timm_registry
from batvit.models.lvvit_adapter import ADAPTER

register(ADAPTER)

__all__ = ["lvvit", "timm_registry"]
