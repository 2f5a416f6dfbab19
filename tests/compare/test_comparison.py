"""A whole comparison by the library: values in, a result out, nothing printed."""

import copy
import json
from dataclasses import replace

import numpy as np
import pytest
import timm
import torch
from PIL import Image

import batvit
from batvit.compare import Comparison
from batvit.data.folder import image_folder, unlabelled


@pytest.fixture(scope="module", autouse=True)
def _quick():
    """So small a model takes the time that it takes: one try, and whatever comes out is taken."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("KINETO_LOG_LEVEL", "99")
        patched.setattr("batvit.budget.TIME_TOLERANCE", 1e9)
        patched.setattr("batvit.compare.steps.TIME_TOLERANCE", 1e9)
        patched.setattr("batvit.budget.ATTEMPTS", 1)
        patched.setattr("batvit.budget.HALVINGS", 2)
        yield


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return timm.create_model(
        "deit_tiny_patch16_224", depth=4, embed_dim=48, num_classes=2, img_size=64
    )


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    root = tmp_path_factory.mktemp("pictures")
    draw = np.random.default_rng(0)
    for label in ("cat", "dog"):
        (root / label).mkdir()
        for i in range(2):
            pixels = draw.integers(0, 256, (64, 64, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(root / label / f"{i}.png")
    return image_folder(root, num_classes=2)


QUICK = {"plans": ["random"], "targets": [0.8], "batch_size": 2, "rounds": 1, "drawn": 1}


@pytest.fixture(scope="module")
def done(model, pictures, tmp_path_factory):
    """A comparison, and the stages that it told."""
    stages = []
    folder = tmp_path_factory.mktemp("done") / "out"
    found = batvit.compare.run(
        model, pictures, folder, **QUICK, command="as a test", progress=stages.append
    )
    return found, stages


def test_a_result_comes_out_and_nothing_is_printed(done, model, pictures, capfd):
    found, _ = done
    assert isinstance(found, Comparison)
    assert [(row.plan, row.key.group.at) for row in found.rows] == [
        ("random", "macs"),
        ("random", "time"),
    ]
    assert found.failures == found.notes == ()
    assert found.dense.accuracy.agreement == 100
    assert json.loads(found.result.read_text()) == json.loads(json.dumps(found.to_dict()))
    for path in (found.report, found.table, found.result, found.plot):
        assert path.stat().st_size > 0
    assert found.report.read_text().count("data:image/png;base64,") == 1 + 1
    assert str(found).startswith("at 0.8 of the MACs of the dense model\n")
    assert capfd.readouterr() == ("", "")


def test_every_stage_is_told(done):
    _, stages = done
    assert [stage.text for stage in stages[:4]] == [
        "random at 0.8 of the MACs",
        "random at 0.8 of the measured time",
        "timing all at 0.8 of the MACs",
        "timing all at 0.8 of the measured time",
    ]
    assert [(stage.text, stage.done, stage.total) for stage in stages[4:]] == [
        ("pictures", done, 4) for done in (0, 2, 4)
    ]


def test_the_metadata_says_what_must_be_the_same(done, model, pictures):
    found, _ = done
    metadata = found.metadata
    assert metadata["model"] == "VisionTransformer"
    assert metadata["data"] == str(pictures.samples[0][0].parent.parent)
    assert (metadata["precision"], metadata["device"]) == ("fp32", "cpu")
    assert (metadata["batch_size"], metadata["rounds"], metadata["img_size"]) == (2, 1, [64, 64])
    assert (metadata["samples"], metadata["command"]) == (4, "as a test")
    assert {"cpu", "torch", "threads", "commit"} <= set(metadata)
    with pytest.raises(ValueError, match="begun with model = VisionTransformer"):
        batvit.compare.run(
            model, pictures, found.folder, **QUICK, resume=True, metadata={"model": "another"}
        )


def test_it_is_gone_on_with_on_request_alone(done, model, pictures):
    found, _ = done
    with pytest.raises(FileExistsError, match="go on with it by resume=True"):
        batvit.compare.run(model, pictures, found.folder, **QUICK)
    stages = []
    again = batvit.compare.run(
        model, pictures, found.folder, **QUICK, resume=True, progress=stages.append
    )
    assert again.rows == found.rows
    assert [stage.done for stage in stages] == [0]
    # the caller's pictures are left as they were
    assert pictures.transform is None


def test_other_weights_are_noticed(done, model, pictures):
    found, _ = done
    stages = []
    with torch.no_grad():
        model.head.bias[0] += 3
    again = batvit.compare.run(
        model, pictures, found.folder, **QUICK, resume=True, progress=stages.append
    )
    assert [stage.done for stage in stages] == [0, 2, 4]
    assert again.rows[0].timing == found.rows[0].timing
    assert again.rows[0].accuracy.kl != found.rows[0].accuracy.kl


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"plans": ["tomme"]}, "unknown plan 'tomme'; there are bat, bat_gradual, topk"),
        ({"plans": []}, "plans is empty"),
        ({"targets": [0.5, 1.2]}, r"targets are shares .* in \(0, 1\), got 1.2"),
        ({"targets": []}, "targets is empty"),
        ({"batch_size": 0}, r"batch_size must lie in \[1, inf\), got 0"),
        ({"workers": -1}, r"workers must lie in \[0, inf\), got -1"),
        ({"rounds": 0}, r"rounds must lie in \[1, inf\), got 0"),
        ({"drawn": -1}, r"drawn must lie in \[0, inf\), got -1"),
        ({"samples": 0}, r"samples must lie in \[1, inf\), got 0"),
    ],
)
def test_bad_values_are_refused_before_anything_is_written(
    model, pictures, tmp_path, settings, said
):
    with pytest.raises(ValueError, match=said):
        batvit.compare.run(model, pictures, tmp_path / "out", **QUICK | settings)
    assert list(tmp_path.iterdir()) == []


def test_so_many_pictures_as_are_asked_for_are_looked_at(model, pictures, tmp_path):
    found = batvit.compare.run(model, pictures, tmp_path / "out", **QUICK, samples=2)
    assert found.metadata["samples"] == 2
    assert len(pictures) == 4


def test_a_model_that_is_reduced_already_is_refused(model, pictures, tmp_path):
    reduced = batvit.patch(copy.deepcopy(model), keep_rate=0.7)
    with pytest.raises(ValueError, match=r"the model has a reduction; call batvit.unpatch"):
        batvit.compare.run(reduced, pictures, tmp_path / "out", **QUICK)
    assert list(tmp_path.iterdir()) == []


def test_pictures_without_labels_are_refused(model, pictures, tmp_path):
    nameless = unlabelled(pictures.samples[0][0].parent)
    with pytest.raises(ValueError, match="the pictures have no labels; give one folder a class"):
        batvit.compare.run(model, nameless, tmp_path / "out", **QUICK)
    assert list(tmp_path.iterdir()) == []


def test_labels_that_are_no_classes_of_the_model_are_refused(model, pictures, tmp_path):
    pictures = replace(pictures, samples=[(path, 7) for path, _ in pictures.samples])
    with pytest.raises(ValueError, match=r"the dense model: labels 7 .. 7 do not fit 2 classes"):
        batvit.compare.run(model, pictures, tmp_path / "out", **QUICK)


def test_no_pictures_are_refused(model, pictures, tmp_path):
    none = type(pictures)([], pictures.classes)
    with pytest.raises(ValueError, match="pictures is empty"):
        batvit.compare.run(model, none, tmp_path / "out", **QUICK)
    assert list(tmp_path.iterdir()) == []
