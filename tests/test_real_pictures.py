"""Real photographs and real weights: the numbers that the library is for."""

import json
import os
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest
import transformers
from PIL import Image
from timm.data import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD

import batvit
from batvit.cli import main
from batvit.models.create import create_model

if "BATVIT_DATA" not in os.environ:
    pytest.skip(
        "BATVIT_DATA names no folder with deit_tiny_patch16_224.safetensors and nips2017.tar",
        allow_module_level=True,
    )

FOLDER = Path(os.environ["BATVIT_DATA"])
MODEL = ("deit_tiny_patch16_224", "--checkpoint", str(FOLDER / "deit_tiny_patch16_224.safetensors"))


@pytest.fixture(scope="session")
def pictures(tmp_path_factory):
    """Every tenth of the 1,000 photographs, by name."""
    root = tmp_path_factory.mktemp("pictures")
    with tarfile.open(FOLDER / "nips2017.tar") as archive:
        names = sorted(name for name in archive.getnames() if name.endswith(".jpg"))
        assert len(names) == 1000
        archive.extractall(
            root, members=[archive.getmember(name) for name in names[::10]], filter="data"
        )
    return root / "nips2017"


@pytest.fixture(scope="module")
def found(pictures):
    """What ``batvit eval`` writes for the training-free preset at keep rate 0.7."""
    path = pictures.parent / "found.json"
    arguments = (
        "--data",
        str(pictures),
        "--class-map",
        str(FOLDER / "class_map.txt"),
        "--json",
        str(path),
    )
    assert main(["eval", *MODEL, *arguments, "--keep-rate", "0.7", "--batch-size", "25"]) == 0
    return json.loads(path.read_text())


def test_the_dense_model_knows_the_pictures(found):
    assert found["samples"] == 100
    assert found["skipped"] == 0
    assert 80 <= found["dense_top1"] <= 93
    assert found["dense_top5"] >= 94


def test_without_any_training_the_reduced_model_stays_near(found):
    assert found["gmacs"] / found["dense_gmacs"] < 0.66
    assert abs(found["top1"] - found["dense_top1"]) <= 4
    assert found["agreement"] >= 88


def run_benchmark(name, *arguments):
    """What a script of benchmarks/ writes as JSON."""
    command = [
        sys.executable,
        "-W",
        "error",
        str(Path(__file__).parents[1] / "benchmarks" / name),
        *map(str, arguments),
    ]
    subprocess.run(command, check=True, capture_output=True)
    return json.loads(Path(arguments[-1]).read_text())


def test_transformers_computes_the_same_from_the_same_weights(pictures, tmp_path):
    few = tmp_path / "few"
    for picture in sorted(pictures.rglob("*.jpg"))[::8]:
        (few / picture.parent.name).mkdir(parents=True, exist_ok=True)
        shutil.copy(picture, few / picture.parent.name)
    data = (
        "--data",
        few,
        "--class-map",
        FOLDER / "class_map.txt",
        "--batch-size",
        13,
        "--threads",
        1,
    )
    found = run_benchmark("libraries.py", *MODEL[1:], *data, "--json", tmp_path / "found.json")
    assert len(found) == 4
    for row in found:
        assert row["pictures"] == row["same_top1"] == 13
        assert row["difference"] < 1e-4


def test_a_pipeline_gives_the_same_labels(pictures, imported):
    _, model = imported("benchmarks/libraries.py").twins(
        create_model(MODEL[0], checkpoint=MODEL[2]).eval()
    )["ViTForImageClassification"]
    processor = transformers.ViTImageProcessor(
        image_mean=IMAGENET_DEFAULT_MEAN, image_std=IMAGENET_DEFAULT_STD
    )
    classify = transformers.pipeline(
        "image-classification", model=model, image_processor=processor, device="cpu", top_k=1
    )
    photographs = [str(path) for path in sorted(pictures.rglob("*.jpg"))[::4]]
    labels = [[row[0]["label"] for row in classify(photographs)]]
    for keep_rate in (1.0, 0.7):
        batvit.patch(model, keep_rate=keep_rate)
        labels.append([row[0]["label"] for row in classify(photographs)])
    assert len(set(labels[0])) > 10
    assert labels[1] == labels[0]
    assert sum(a == b for a, b in zip(labels[0], labels[2], strict=True)) >= 23


def test_a_photograph_is_drawn(pictures, tmp_path):
    picture = sorted(pictures.rglob("*.jpg"))[0]
    assert (
        main(
            [
                "draw",
                *MODEL,
                str(picture),
                "-o",
                str(tmp_path / "groups.png"),
                "--json",
                str(tmp_path / "groups.json"),
            ]
        )
        == 0
    )
    with Image.open(tmp_path / "groups.png") as strip:
        strip.load()
        assert (strip.format, strip.mode) == ("PNG", "RGB")
        # the photograph is the first panel: it is no blank
        assert strip.crop((14, 66, 350, 402)).entropy() > 4
    sites = json.loads((tmp_path / "groups.json").read_text())["sites"]
    assert [site["tokens_out"] for site in sites] == [143, 95, 63]
