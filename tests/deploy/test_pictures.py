"""Pictures to compare and calibrate on: the same each time, prepared as the model expects."""

import numpy as np
import pytest
import timm
import torch
from PIL import Image

from batvit.data.folder import unlabelled
from batvit.data.loading import loader
from batvit.deploy.export import export
from batvit.deploy.load import load_engine
from batvit.deploy.metadata import ExportMetadata
from batvit.deploy.pictures import choose_pictures, prepared


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """Nine pictures of noise."""
    folder = tmp_path_factory.mktemp("pictures")
    numbers = np.random.default_rng(0)
    for i in range(9):
        pixels = numbers.integers(0, 256, (40, 50, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{i}.png")
    return unlabelled(folder)


def paths(pictures):
    return [path for path, _ in pictures.samples]


def test_the_choice_is_the_same_each_time_and_leaves_the_pictures_alone(pictures):
    before = list(pictures.samples)
    first, calibration = choose_pictures(pictures, samples=4)
    again, _ = choose_pictures(pictures, samples=4)
    assert paths(first) == paths(again) != [path for path, _ in before][:4]
    assert len(first) == 4
    assert calibration is None
    assert pictures.samples == before


def test_what_is_calibrated_on_is_not_compared_on(pictures):
    compared, calibration = choose_pictures(pictures, samples=4, int8=True)
    assert paths(compared) == paths(choose_pictures(pictures, samples=4)[0])
    assert set(paths(compared) + paths(calibration)) == set(paths(pictures))
    assert (len(compared), len(calibration)) == (4, 5)


def test_all_are_compared_on_if_there_are_no_more(pictures):
    assert len(choose_pictures(pictures)[0]) == 9


def test_none_left_to_calibrate_on_is_refused(pictures):
    with pytest.raises(ValueError, match=r"int8=True needs more pictures than the 9 compared on"):
        choose_pictures(pictures, samples=9, int8=True)


def test_pictures_are_prepared_as_for_the_model(pictures):
    model = timm.create_model("deit_tiny_patch16_224", img_size=32, depth=1)
    metadata = ExportMetadata(
        model="m",
        config=None,
        macs=1,
        dense_macs=1,
        param_count=1,
        num_classes=1,
        int8=False,
        input_size=(3, 32, 32),
        mean=(0.485, 0.456, 0.406),
        std=(0.229, 0.224, 0.225),
        interpolation="bicubic",
        crop_pct=0.9,
        crop_mode="center",
    )
    found = prepared(pictures, metadata)
    expected, _ = next(iter(loader(pictures, model, batch_size=9)))
    assert [batch.shape for batch in found] == [(1, 3, 32, 32)] * 9
    assert torch.equal(torch.cat(found), expected)


@pytest.mark.unchecked
def test_export_takes_pictures(pictures, dense, tmp_path):
    compared, calibration = choose_pictures(pictures, samples=4, int8=True)
    half = {"mean": (0.5, 0.5, 0.5), "std": (0.5, 0.5, 0.5)}
    done = export(dense(depth=1), tmp_path / "a.pt2", images=compared, preprocessing=half)
    assert (done.samples, done.within, done.metadata.mean) == (4, 100, (0.5, 0.5, 0.5))
    done = export(dense(depth=1), tmp_path / "a.xml", images=compared, calibration=calibration)
    assert (done.samples, load_engine(done.path).metadata.int8) == (4, True)
