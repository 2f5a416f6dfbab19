"""What tests of several commands share: a small model, pictures, and how a command ends."""

import numpy as np
from PIL import Image

from batvit.cli import main

NAME = "deit_tiny_patch16_224"
SMALL = ("--img-size", "64", "--num-classes", "3")


def ends(*arguments):
    """How a command ends: argparse leaves by an exception, the rest returns."""
    try:
        return main([str(argument) for argument in arguments])
    except SystemExit as error:
        return error.code


def noise(seed=0):
    pixels = np.random.default_rng(seed).integers(0, 256, (48, 64, 3), dtype=np.uint8)
    return Image.fromarray(pixels)
