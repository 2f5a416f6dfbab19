"""Batches, prepared as a model expects them."""

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from timm.data import create_transform, resolve_data_config
from timm.models.vision_transformer import VisionTransformer
from torch import nn

from batvit.data.folder import image_folder
from batvit.data.loading import data_config, loader, placed, prepared
from batvit.data.pictures import UnreadableError, open_picture


def noise(size=(40, 32), seed=0):
    pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    return Image.fromarray(pixels)


def folder(root, files=("a/1.png", "a/2.png", "b/1.jpg")):
    for i, name in enumerate(files):
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        noise(seed=i).save(path)
    return root


def cut(path):
    """Leave a JPEG its header and half its pixels."""
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    return path


def tiny(**settings):
    return VisionTransformer(
        **(
            {"img_size": 32, "patch_size": 16, "embed_dim": 8, "depth": 1, "num_heads": 1}
            | settings
        )
    )


def test_what_shows_only_when_decoded_is_named_with_the_remedy(tmp_path):
    root = folder(tmp_path, ("a/1.jpg", "b/1.jpg"))
    cut(root / "b" / "1.jpg")
    found = image_folder(root)
    assert len(found) == 2
    with pytest.raises(
        UnreadableError,
        match=r"b/1.jpg: .*truncated.*; remove it, or skip such files \(skip_unreadable=True\)",
    ):
        list(loader(found, tiny(), batch_size=2))


@pytest.mark.parametrize(
    "name", ["deit_tiny_patch16_224", "vit_small_patch14_dinov2", "vit_base_patch16_siglip_224"]
)
def test_transforms_are_those_of_timm_for_the_model(tmp_path, name):
    model = timm.create_model(name, depth=1, embed_dim=12, num_heads=1)
    pictures = image_folder(folder(tmp_path, ("a/1.png", "a/2.png", "b/3.png")))
    batches = list(loader(pictures, model, batch_size=2))
    transform = create_transform(**resolve_data_config({}, model=model))
    expected = torch.stack([transform(open_picture(path)) for path, _ in pictures.samples])
    assert [len(labels) for _, labels in batches] == [2, 1]
    assert torch.equal(torch.cat([images for images, _ in batches]), expected)
    assert torch.cat([labels for _, labels in batches]).tolist() == [0, 0, 1]


def test_batches_are_the_same_twice_and_with_workers(tmp_path):
    pictures = image_folder(folder(tmp_path))
    runs = [list(loader(pictures, tiny(), batch_size=2, workers=workers)) for workers in (0, 0, 1)]
    for run in runs[1:]:
        for (images, labels), (first_images, first_labels) in zip(run, runs[0], strict=True):
            assert torch.equal(images, first_images)
            assert torch.equal(labels, first_labels)


def test_the_size_is_that_of_the_model_as_it_is(tmp_path):
    model = tiny()
    pictures = image_folder(folder(tmp_path))
    assert next(iter(loader(pictures, model, batch_size=1)))[0].shape == (1, 3, 32, 32)
    model.set_input_size((64, 48))
    assert next(iter(loader(pictures, model, batch_size=2)))[0].shape == (2, 3, 64, 48)
    # a model that says nothing gets what timm takes for ImageNet
    assert data_config(nn.Linear(1, 1))["input_size"] == (3, 224, 224)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16, torch.float64])
def test_a_batch_gets_the_type_and_device_of_the_weights(dtype):
    batch = placed(torch.ones(1, 3, 4, 4), nn.Linear(2, 2).to(dtype))
    assert (batch.dtype, batch.device.type) == (dtype, "cpu")
    assert placed(batch, nn.Linear(2, 2, device="meta")).is_meta


def test_a_batch_for_a_model_without_weights_stays_as_it_is():
    batch = torch.ones(1, 3, 4, 4)
    assert placed(batch, nn.Flatten()) is batch


def test_whole_numbers_as_weights_take_float32():
    model = nn.Module()
    model.weight = nn.Parameter(torch.ones(2, dtype=torch.int8), requires_grad=False)
    assert placed(torch.ones(1, 3, 4, 4, dtype=torch.float64), model).dtype == torch.float32


def test_one_picture_is_prepared_as_those_of_a_folder_are(tmp_path):
    model = tiny()
    (expected, _), *_ = loader(image_folder(folder(tmp_path)), model, batch_size=1)
    found = prepared(open_picture(tmp_path / "a" / "1.png"), model)
    assert found.shape == (1, 3, 32, 32)
    torch.testing.assert_close(found, expected)
    assert prepared(noise(), model.bfloat16()).dtype == torch.bfloat16
