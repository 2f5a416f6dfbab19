"""Models by name. Importing this folder puts its own into timm's registry, and registers LV-ViT.

- ``create``: a model by its name, with weights from a file or from timm's hub.
- ``classifier_head``: a head for other classes on a trained trunk.
- ``training_setup``: the models of a training run, as a recipe or its user chose.
- ``supported``: which models can be reduced.
- ``lvvit``: LV-ViT, which timm lacks; ``lvvit_adapter``: what a patch needs to know of it.
- ``timm_registry``: ``bat_<name>`` for the models that timm has, reduced as they are made.
- ``__main__``: ``python -m batvit.models train.py …`` runs timm's own scripts with these models.
"""

from batvit.backbones.registry import register
from batvit.models import lvvit, timm_registry
from batvit.models.lvvit_adapter import ADAPTER

register(ADAPTER)

__all__ = ["lvvit", "timm_registry"]
