import random
import subprocess
import sys
from pathlib import Path

import pytest
import timm
from PIL import Image

from batvit.storage.weights import save_weights

EXAMPLE = Path(__file__).parents[2] / "examples" / "segmentation.py"
COLOURS = {"blue": (20, 30, 220), "green": (30, 200, 20), "red": (230, 20, 30)}


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Eight pictures of noise a class, each class around a colour of its own."""
    root, rng = tmp_path_factory.mktemp("pictures"), random.Random(0)
    for name, colour in COLOURS.items():
        (root / name).mkdir()
        for i in range(8):
            noise = bytes(
                min(255, max(0, c + rng.randrange(-20, 21))) for _ in range(24 * 24) for c in colour
            )
            Image.frombytes("RGB", (24, 24), noise).save(root / name / f"{i}.png")
    return root


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return save_weights(
        timm.create_model("test_vit"), tmp_path_factory.mktemp("weights") / "test_vit.safetensors"
    )


@pytest.fixture
def options(data, checkpoint):
    def of(**changed):
        defaults = {
            "data": data,
            "model": "test_vit",
            "checkpoint": checkpoint,
            "classes": 3,
            "canvases": 24,
            "epochs": 40,
        }
        return [f"--{key.replace('_', '-')}={value}" for key, value in (defaults | changed).items()]

    return of


@pytest.fixture(scope="module")
def example(imported):
    return imported(EXAMPLE)


@pytest.fixture
def refused(example, options, capsys):
    """Check that the example ends with 2 and one line that holds a message."""

    def check(message, **changed):
        with pytest.raises(SystemExit) as stop:
            example.main(options(**changed))
        said = capsys.readouterr()
        assert (stop.value.code, said.out) == (2, "")
        assert len(said.err.splitlines()) == 1
        assert said.err.startswith("segmentation.py: ")
        assert message in said.err

    return check


def test_a_table_of_dense_and_reduced_is_all_that_is_printed(options):
    done = subprocess.run(
        [sys.executable, str(EXAMPLE), *options(keep_rate=0.6, seed=1)],
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stderr) == (0, "")
    head, _, *rows = [
        [cell.strip() for cell in line.strip("|").split("|")] for line in done.stdout.splitlines()
    ]
    assert head == ["", "tokens at the end", "G MACs", "of dense", "pixel accuracy", "mean IoU"]
    assert [row[0] for row in rows] == ["dense", "keep 0.6"]
    (_, tokens, macs, ratio, *scores), (_, fewer, less, part, *others) = rows
    assert (tokens, ratio) == ("100", "1.00")
    assert int(fewer) < 40
    assert float(less) < float(macs)
    assert float(part) == pytest.approx(float(less) / float(macs), abs=0.02)
    # guessing gets a third of the pixels right
    assert all(60 < float(accuracy) <= 100 for accuracy in (scores[0], others[0]))
    assert all(float(iou) <= float(accuracy) for accuracy, iou in (scores, others))


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"classes": 4}, "has 3 class folders; --classes must lie between 2 and that"),
        ({"classes": 1}, "has 3 class folders; --classes must lie between 2 and that"),
        ({"data": "/nowhere"}, "/nowhere: no such folder"),
        ({"checkpoint": "/nowhere.safetensors"}, "/nowhere.safetensors: no such file"),
        ({"model": "test_vot"}, "unknown model 'test_vot'"),
        ({"canvases": 0}, "--canvases must be 2 or more"),
        ({"epochs": 0}, "--canvases must be 2 or more, --epochs 1 or more"),
        ({"keep_rate": "much"}, "invalid float value"),
    ],
)
def test_bad_input_is_one_line(refused, changed, message):
    refused(message, **changed)


@pytest.mark.parametrize("keep_rate", [0, 1.5])
def test_a_bad_keep_rate_is_one_line(refused, keep_rate):
    refused("keep_rate", keep_rate=keep_rate)


def test_a_process_ends_with_two_and_one_line(options):
    done = subprocess.run(
        [sys.executable, str(EXAMPLE), *options(classes=4)], capture_output=True, text=True
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert len(done.stderr.splitlines()) == 1


def test_a_class_with_too_few_pictures_is_named(refused, tmp_path):
    for name, count in {"few": 3, "many": 4}.items():
        (tmp_path / name).mkdir()
        for i in range(count):
            Image.new("RGB", (8, 8)).save(tmp_path / name / f"{i}.png")
    refused("few holds 3 pictures; 4 are needed at least", data=tmp_path, classes=2)


def test_a_model_that_cannot_be_reduced_is_one_line(refused, tmp_path):
    weights = save_weights(timm.create_model("test_resnet"), tmp_path / "test_resnet.safetensors")
    refused("cannot reduce the tokens", model="test_resnet", checkpoint=weights)
