"""A small classifier of transformers, and the folder of one that was saved while it was patched."""

from families import of_transformers

import batvit
from batvit.testing.run_contract import randomised


def vit(**settings):
    return randomised(
        of_transformers("ViTForImageClassification", "ViTConfig", 4, num_labels=5, **settings)
    )


def saved_reduced(folder):
    batvit.patch(vit(), keep_rate=0.5, blocks=(1,)).save_pretrained(folder)
    return folder
