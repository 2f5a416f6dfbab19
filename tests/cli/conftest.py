"""What tests of several commands start from."""

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from safetensors.torch import save_file


@pytest.fixture(autouse=True)
def _as_it_was(monkeypatch):
    monkeypatch.setenv("KINETO_LOG_LEVEL", "99")
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def given(tmp_path_factory):
    """Weights for three classes, and four pictures of each."""
    root = tmp_path_factory.mktemp("given")
    torch.manual_seed(0)
    model = timm.create_model("test_vit", num_classes=3, img_size=96)
    save_file(model.state_dict(), root / "vit.safetensors")
    for i, label in enumerate(("bird", "cat", "dog")):
        (root / "data" / label).mkdir(parents=True)
        for j in range(4):
            pixels = np.random.default_rng(4 * i + j).integers(
                0, 256, (100, 100, 3), dtype=np.uint8
            )
            Image.fromarray(pixels).save(root / "data" / label / f"{j}.png")
    model = (
        "test_vit",
        "--checkpoint",
        str(root / "vit.safetensors"),
        "--num-classes",
        "3",
        "--img-size",
        "96",
    )
    return (
        *model,
        "--data",
        str(root / "data"),
        "--device",
        "cpu",
        "--threads",
        "1",
        "--batch-size",
        "5",
    )
