"""In timm's registry once this is imported: LV-ViT, which timm lacks, and ``bat_<name>`` for the models that it has."""

from batvit.models import lvvit, registered

__all__ = ["lvvit", "registered"]
