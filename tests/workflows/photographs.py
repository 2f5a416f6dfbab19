"""Real weights and photographs for tests of other people's tools."""

import os
import tarfile
from pathlib import Path

import pytest

import batvit
from batvit.data.folder import image_folder
from batvit.data.loading import loader
from batvit.models.create import create_model

needs_photographs = pytest.mark.skipif(
    "BATVIT_DATA" not in os.environ,
    reason="BATVIT_DATA names no folder with weights and photographs",
)


def model_and_photographs(folder, *, every, batch_size):
    """A reduced DeiT-Ti, and a batch of photographs, of every so many one."""
    data = Path(os.environ["BATVIT_DATA"])
    weights = str(data / "deit_tiny_patch16_224.safetensors")
    model = batvit.patch(create_model("deit_tiny_patch16_224", checkpoint=weights).eval())
    with tarfile.open(data / "nips2017.tar") as archive:
        names = sorted(name for name in archive.getnames() if name.endswith(".jpg"))
        members = [archive.getmember(name) for name in names[::every]]
        archive.extractall(folder, members=members, filter="data")
    found = image_folder(folder / "nips2017", class_map=data / "class_map.txt")
    images, _ = next(iter(loader(found, model, batch_size=batch_size)))
    return model, images
