"""Models written for other engines: the file computes what the model does.

What cannot be written leaves nothing behind.
"""

import json
import os
import tarfile
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
import transformers
from torch import nn

import batvit
from batvit.data.folder import image_folder
from batvit.data.loading import loader
from batvit.deploy.export import Exported, export
from batvit.deploy.load import load_engine
from batvit.deploy.torch_format import FORMAT
from batvit.models.create import create_model
from batvit.storage.drafts import SUFFIX
from batvit.storage.files import NoRoomError
from batvit.testing.run_contract import randomised

graphs = pytest.mark.unchecked
SUFFIXES = (".onnx", ".xml", ".pt2")
SIZE = 48


def noise(batch, size=SIZE, seed=1):
    return torch.randn(batch, 3, size, size, generator=torch.Generator().manual_seed(seed))


@torch.no_grad()
def differences(engine, model, images):
    """The largest of each image, and whether all have the same most likely class."""
    found, expected = engine(images), model(images)
    assert found.shape == expected.shape
    assert found.dtype == torch.float32
    return (found - expected).abs().amax(dim=1), bool(
        (found.argmax(dim=1) == expected.argmax(dim=1)).all()
    )


def names(folder):
    return sorted(path.name for path in folder.iterdir())


# the same file for every batch size


class Case(NamedTuple):
    model: nn.Module
    done: Exported
    engine: Any


@pytest.fixture(
    scope="module",
    params=[(suffix, kind) for suffix in SUFFIXES for kind in ("dense", "reduced")],
    ids="-".join,
)
def case(request, tmp_path_factory, dense, reduced, traced_once):
    suffix, kind = request.param
    model = dense() if kind == "dense" else reduced()
    path = tmp_path_factory.mktemp("case") / f"model{suffix}"
    with traced_once(kind):
        done = export(model, path, name="small")
    return Case(model, done, load_engine(path))


@graphs
def test_one_file_serves_every_batch_size(case):
    for batch in (1, 3, 5):
        difference, same = differences(case.engine, case.model, noise(batch, seed=batch))
        assert difference.max() < 1e-4
        assert same
    difference, same = differences(case.engine, case.model, noise(64))
    assert difference.median() < 1e-5
    assert (difference < 1e-3).float().mean() >= 0.95


@graphs
@torch.no_grad()
def test_ties_are_decided_as_torch_decides_them(case):
    # patches that differ in their position alone; in all of them, two tokens that are nearest to
    # one another are equally dense
    grey = torch.tensor([-1.0, 0.0, 0.3]).view(3, 1, 1, 1).expand(3, 3, SIZE, SIZE).contiguous()
    difference, same = differences(case.engine, case.model, grey)
    assert difference.max() < 1e-4
    assert same


@graphs
def test_the_card_says_what_the_file_is(case):
    metadata, cost = case.done.metadata, batvit.info(case.model)
    assert metadata == case.engine.metadata
    assert (metadata.model, metadata.int8) == ("small", False)
    assert (metadata.macs, metadata.dense_macs, metadata.param_count) == (
        cost.macs,
        cost.dense_macs,
        cost.param_count,
    )
    assert metadata.config == (None if cost.config is None else json.loads(json.dumps(cost.config)))
    assert (
        (metadata.macs < metadata.dense_macs)
        == (metadata.config is not None)
        == (batvit.config_of(case.model) is not None)
    )
    assert (metadata.input_size, metadata.num_classes) == ((3, SIZE, SIZE), 7)
    assert (metadata.mean, metadata.std) == ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    assert (metadata.interpolation, metadata.crop_pct, metadata.crop_mode) == (
        "bicubic",
        0.9,
        "center",
    )
    assert case.engine.pretrained_cfg["input_size"] == (3, SIZE, SIZE)


@graphs
def test_the_result_tells_how_near_the_file_is(case):
    assert (case.done.samples, case.done.within, case.done.agreement) == (8, 100, 100)
    assert case.done.largest_difference < 1e-4
    beside = {".xml": ["model.bin", "model.xml"]}.get(case.done.path.suffix, [case.done.path.name])
    assert names(case.done.path.parent) == beside


@graphs
@pytest.mark.parametrize(
    "case", [(suffix, "reduced") for suffix in SUFFIXES], ids="-".join, indirect=True
)
def test_images_may_lie_anyhow(case):
    images = noise(6)[::2].transpose(2, 3)
    with torch.inference_mode():
        inferred = images.clone()
    for kind in (images, inferred):
        assert torch.equal(case.engine(kind), case.engine(images.contiguous()))


@graphs
@pytest.mark.parametrize(
    "case", [(suffix, "reduced") for suffix in SUFFIXES], ids="-".join, indirect=True
)
def test_a_second_export_gives_the_same_logits(case, tmp_path, traced_once):
    with traced_once("again"):
        export(case.model, tmp_path / case.done.path.name, images=noise(3))
    again = load_engine(tmp_path / case.done.path.name)
    assert torch.equal(again(noise(5)), case.engine(noise(5)))


@graphs
@torch.no_grad()
def test_positions_alone_would_tie_without_them(tmp_path, reduced, traced_once):
    """Without positions all patches of one colour are bit for bit alike.

    So every order and choice of the reduction is a tie.
    """
    model = reduced()
    model.pos_embed.zero_()
    grey = torch.full((2, 3, SIZE, SIZE), 0.3)
    for suffix in (".onnx", ".xml"):
        with traced_once("positions"):
            export(model, tmp_path / f"model{suffix}")
        difference, same = differences(load_engine(tmp_path / f"model{suffix}"), model, grey)
        assert difference.max() < 1e-4
        assert same


# the model that is passed in


@graphs
@torch.no_grad()
@pytest.mark.parametrize("suffix", SUFFIXES[2:])
def test_the_model_stays_as_it_was_and_is_written_in_float32_for_inference(
    tmp_path, suffix, reduced
):
    model = reduced(size_aware=True).bfloat16().train()
    model.head_drop.p = model.blocks[0].mlp.drop1.p = 0.5
    model.norm.weight.requires_grad_(False)
    calls = []
    hook = model.blocks[1].register_forward_hook(lambda *_: calls.append(1))
    before = {name: value.clone() for name, value in model.state_dict().items()}
    hooks = {
        name: [dict(m._forward_hooks), dict(m._forward_pre_hooks)]
        for name, m in model.named_modules()
    }
    modes = {name: m.training for name, m in model.named_modules()}
    kinds = {name: type(m) for name, m in model.named_modules()}
    config, random = batvit.config_of(model), torch.get_rng_state()
    done = export(model, tmp_path / f"model{suffix}")
    assert not calls
    assert batvit.config_of(model) == config
    after = model.state_dict()
    assert list(after) == list(before)
    assert all(
        torch.equal(after[name], before[name]) and after[name].dtype == torch.bfloat16
        for name in before
    )
    assert {
        name: [dict(m._forward_hooks), dict(m._forward_pre_hooks)]
        for name, m in model.named_modules()
    } == hooks
    assert {name: m.training for name, m in model.named_modules()} == modes
    assert {name: type(m) for name, m in model.named_modules()} == kinds
    assert [p.requires_grad for p in model.parameters()].count(False) == 1
    assert torch.equal(torch.get_rng_state(), random)
    model(noise(1).bfloat16())
    assert calls
    hook.remove()
    assert done.largest_difference < 1e-4
    difference, same = differences(load_engine(done.path), model.float().eval(), noise(5))
    assert difference.max() < 1e-4
    assert same


# other libraries, other models


def of_transformers():
    config = transformers.ViTConfig(
        hidden_size=48,
        num_attention_heads=3,
        intermediate_size=96,
        image_size=SIZE,
        patch_size=8,
        num_hidden_layers=2,
        num_labels=7,
    )
    return randomised(transformers.ViTForImageClassification(config))


OTHERS = {
    "distilled": ("deit_tiny_distilled_patch16_224", {"img_size": 32}),
    "rotary": ("eva02_tiny_patch14_224", {"img_size": 42, "patch_size": 14}),
    "pooled": ("vit_medium_patch16_gap_240", {"img_size": 32}),
}


@graphs
@pytest.mark.parametrize("name", OTHERS)
def test_other_families(tmp_path, name, dense):
    timm_name, settings = OTHERS[name]
    model = batvit.patch(dense(timm_name, **settings), keep_rate=0.5, blocks=(0,))
    done = export(model, tmp_path / "model.onnx")
    assert (done.within, done.agreement) == (100, 100)
    difference, same = differences(
        load_engine(done.path), model, noise(3, model.patch_embed.img_size[0])
    )
    assert difference.max() < 1e-3
    assert same


@graphs
@torch.no_grad()
@pytest.mark.parametrize("suffix", [".onnx", ".pt2"])
def test_a_model_that_returns_more_than_logits(tmp_path, suffix, traced_once):
    model = batvit.patch(of_transformers(), keep_rate=0.6, blocks=(0,))
    with traced_once("transformers"):
        done = export(model, tmp_path / f"model{suffix}")
    engine = load_engine(done.path)
    assert done.metadata.model == "ViTForImageClassification"
    assert done.metadata.num_classes == 7
    assert done.metadata.macs == batvit.info(model).macs
    for batch in (1, 3):
        torch.testing.assert_close(
            engine(noise(batch)), model(noise(batch)).logits, rtol=0, atol=1e-4
        )


@graphs
def test_the_card_tells_what_the_caller_knows_of_the_images(tmp_path):
    half = {
        "mean": (0.5, 0.5, 0.5),
        "std": (0.5, 0.5, 0.5),
        "crop_pct": 1.0,
        "interpolation": "bilinear",
    }
    done = export(
        of_transformers(), tmp_path / "model.pt2", images=noise(2).bfloat16(), preprocessing=half
    )
    assert {name: getattr(load_engine(done.path).metadata, name) for name in half} == half
    for wrong in ({"mean": 0.5}, {"std": (1.0, 0.0, 1.0)}):
        with pytest.raises(
            ValueError, match="images of 3 channels take as many numbers as mean and std"
        ):
            export(of_transformers(), tmp_path / "other.pt2", preprocessing=wrong)
    with pytest.raises(ValueError, match=r"preprocessing tells of mean, std, .*, got 'size'"):
        export(of_transformers(), tmp_path / "other.pt2", preprocessing={"size": 3})


def test_a_model_without_logits_is_refused(tmp_path):
    config = transformers.ViTConfig(
        hidden_size=48, num_attention_heads=3, image_size=SIZE, patch_size=8, num_hidden_layers=1
    )
    with pytest.raises(TypeError, match="a ViTModel gives no logits; export a classifier"):
        export(transformers.ViTModel(config), tmp_path / "model.pt2")
    assert not names(tmp_path)


@graphs
def test_a_draft_that_its_engine_cannot_read_is_told_by_the_name_of_the_file(
    tmp_path, monkeypatch, dense, traced_once
):
    monkeypatch.setattr(FORMAT, "write", lambda program, path, *rest: path.write_bytes(b"half"))
    with (
        pytest.raises(ValueError, match="pt2 cannot take this model") as caught,
        traced_once("one block"),
    ):
        export(dense(depth=1), tmp_path / "model.pt2")
    assert str(caught.value).startswith(f"{tmp_path / 'model.pt2'}: ")
    assert str(caught.value).endswith("nothing was written")
    assert "export it again" not in str(caught.value)
    assert not names(tmp_path)


# int8


# refusals


class Stranger(nn.Linear):
    pass


REFUSED = {
    "suffix": ("model.pth", {}, ValueError, ["model.pth", ".onnx, .xml, .pt2"]),
    "no suffix": ("model", {}, ValueError, ["model", ".onnx, .xml, .pt2"]),
    "exists": (
        "there.onnx",
        {},
        FileExistsError,
        ["there.onnx exists", "remove it or name another"],
    ),
    "weights exist": (
        "there.xml",
        {},
        FileExistsError,
        ["there.bin exists", "remove it or name another"],
    ),
    "a folder": (
        "folder.pt2",
        {},
        IsADirectoryError,
        ["folder.pt2", "it is a folder; name a file in it"],
    ),
    "no folder": (
        "gone/model.pt2",
        {},
        FileNotFoundError,
        ["gone does not exist; create it first"],
    ),
    "old opset": ("model.onnx", {"opset": 17}, ValueError, ["opset must lie in 18 .. ", "got 17"]),
    "new opset": ("model.onnx", {"opset": 99}, ValueError, ["opset must lie in 18 .. ", "got 99"]),
    "opset of pt2": (
        "model.pt2",
        {"opset": 18},
        ValueError,
        ["opset is for the format onnx, got 18 for model.pt2"],
    ),
    "opset of xml": (
        "model.xml",
        {"opset": 18},
        ValueError,
        ["opset is for the format onnx, got 18 for model.xml"],
    ),
    "small images": (
        "model.pt2",
        {"images": noise(2, 32)},
        ValueError,
        ["(B, 3, 48, 48), got (2, 3, 32, 32)"],
    ),
    "one image": (
        "model.pt2",
        {"images": noise(1)[0]},
        ValueError,
        ["(B, 3, 48, 48), got (3, 48, 48)"],
    ),
    "no images": (
        "model.pt2",
        {"images": noise(0)},
        ValueError,
        ["(B, 3, 48, 48), got (0, 3, 48, 48)"],
    ),
    "int8 for onnx": (
        "model.onnx",
        {"calibration": [noise(1)]},
        ValueError,
        ["int8 needs the format openvino", "model.onnx"],
    ),
    "no calibration": (
        "model.xml",
        {"calibration": []},
        ValueError,
        ["int8 needs images to calibrate on", "0 batches"],
    ),
}


@pytest.fixture(scope="module")
def refused_model(dense):
    return dense(depth=1)


@pytest.mark.parametrize("what", REFUSED)
def test_refusals_are_one_line_and_leave_nothing(tmp_path, what, refused_model):
    name, settings, kind, said = REFUSED[what]
    for there in ("there.onnx", "there.bin"):
        (tmp_path / there).write_text("mine")
    (tmp_path / "folder.pt2").mkdir()
    before = names(tmp_path)
    with pytest.raises(kind) as caught:
        export(refused_model, tmp_path / name, **settings)
    message = str(caught.value)
    assert "\n" not in message
    assert all(part in message for part in said), message
    assert names(tmp_path) == before
    assert (tmp_path / "there.onnx").read_text() == (tmp_path / "there.bin").read_text() == "mine"


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_an_unsupported_model_is_refused_by_name(tmp_path, suffix):
    with pytest.raises(
        TypeError, match=r"cannot reduce the tokens of .*Stranger: no adapter knows this class"
    ):
        export(Stranger(3, 3), tmp_path / f"model{suffix}")
    assert not names(tmp_path)


MISSING = [
    (".onnx", "onnx", {}),
    (".onnx", "onnxscript", {}),
    (".onnx", "onnxruntime", {}),
    (".xml", "openvino", {}),
    (".xml", "nncf", {"calibration": [noise(1)]}),
]


@pytest.mark.parametrize(
    ("suffix", "package", "settings"), MISSING, ids=[row[1] for row in MISSING]
)
def test_what_is_not_installed_is_named(
    tmp_path, monkeypatch, suffix, package, settings, refused_model
):
    # importing what stands there as None raises ImportError
    monkeypatch.setitem(__import__("sys").modules, package, None)
    with pytest.raises(
        ValueError, match=rf"needs the package {package}: pip install {package}"
    ) as caught:
        export(refused_model, tmp_path / f"model{suffix}", **settings)
    assert "\n" not in str(caught.value)
    assert not names(tmp_path)


@graphs
def test_a_file_that_computes_something_else_is_not_written(
    tmp_path, monkeypatch, dense, traced_once
):
    other = dense(depth=1)
    with torch.no_grad():
        other.head.weight.neg_()
    wrong = torch.export.export(
        other, (noise(2),), dynamic_shapes=({0: torch.export.Dim("batch")},)
    )
    write = FORMAT.write
    monkeypatch.setattr(FORMAT, "write", lambda program, *rest: write(wrong, *rest))
    told = "computes something else than the model: half of the images"
    with pytest.raises(ValueError, match=told) as caught, traced_once("one block"):
        export(dense(depth=1), tmp_path / "model.pt2")
    assert "\n" not in str(caught.value)
    assert "nothing was written" in str(caught.value)
    assert not names(tmp_path)


@graphs
@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("room", [1000, 100_000])
def test_where_there_is_no_room_the_file_is_named_and_nothing_is_left(
    tmp_path, dense, traced_once, file_size_limit, suffix, room
):
    path = tmp_path / f"model{suffix}"
    told = f"cannot write {path}: files so large are not allowed here"
    model = dense(depth=1)
    with (
        traced_once("one block"),
        pytest.raises(NoRoomError, match=told) as caught,
        file_size_limit(room),
    ):
        export(model, path)
    assert "\n" not in str(caught.value)
    assert not names(tmp_path)


@graphs
@pytest.mark.parametrize("suffix", SUFFIXES)
def test_what_a_killed_export_left_is_swept_by_the_next(tmp_path, dense, traced_once, suffix):
    path = tmp_path / f"model{suffix}"
    left = tmp_path / f".model{suffix}.01234567{SUFFIX}"
    left.mkdir()
    (left / path.name).write_text("half of it")
    (left / "model.bin").write_text("weights")
    # put in its place, without the file that is named
    (tmp_path / "model.bin").hardlink_to(left / "model.bin")
    with traced_once("one block"):
        export(dense(depth=1), path)
    beside = ["model.bin"] if suffix == ".xml" else []
    assert names(tmp_path) == sorted([*beside, path.name])
    load_engine(path)


# real photographs


@graphs
@pytest.mark.skipif(
    "BATVIT_DATA" not in os.environ,
    reason="BATVIT_DATA names no folder with weights and photographs",
)
@pytest.mark.parametrize("suffix", [".onnx", ".xml"])
def test_fifty_photographs_are_classified_the_same(tmp_path, suffix, traced_once):
    folder = Path(os.environ["BATVIT_DATA"])
    with tarfile.open(folder / "nips2017.tar") as archive:
        members = sorted(
            (m for m in archive.getmembers() if m.name.endswith(".jpg")), key=lambda m: m.name
        )[::20]
        archive.extractall(tmp_path, members=members, filter="data")
    model = create_model(
        "deit_tiny_patch16_224", checkpoint=str(folder / "deit_tiny_patch16_224.safetensors")
    )
    batvit.patch(model.eval(), keep_rate=0.7)
    found = image_folder(tmp_path / "nips2017", class_map=folder / "class_map.txt")
    images, _ = next(iter(loader(found, model, batch_size=50)))
    with traced_once("deit"):
        done = export(model, tmp_path / f"deit{suffix}", images=images)
    assert done.samples == 50
    assert done.agreement >= 98
    assert done.within >= 96
