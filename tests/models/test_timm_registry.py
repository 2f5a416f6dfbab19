"""timm's registry: dense names with ``bat_`` before them, from Python and from timm's scripts."""

import importlib
import json
import os
import pickle
import runpy
import subprocess
import sys
from dataclasses import asdict

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from timm.models import model_entrypoint

import batvit
from batvit.models import timm_registry

ONE_EACH = {
    "AugReg": "vit_tiny_patch16_224",
    "DeiT": "deit_small_patch16_224",
    "DeiT distilled": "deit_small_distilled_patch16_224",
    "DeiT-III": "deit3_small_patch16_224",
    "DINOv2": "vit_small_patch14_dinov2",
    "DINOv2 with registers": "vit_small_patch14_reg4_dinov2",
    "LV-ViT": "lvvit_small_patch16_224",
}
SMALL = {"depth": 3, "embed_dim": 48, "num_heads": 3, "img_size": 112, "num_classes": 5}
NAME = "bat_deit_small_patch16_224"
one_of_each = pytest.mark.parametrize("name", ONE_EACH.values(), ids=ONE_EACH.keys())


def small(name=NAME, **settings):
    return timm.create_model(name, **(SMALL | {"blocks": (1, 2)} | settings)).eval()


def dense(name=NAME, **settings):
    return timm.create_model(name.removeprefix("bat_"), **(SMALL | settings)).eval()


def pictures():
    return torch.randn(2, 3, 112, 112, generator=torch.Generator().manual_seed(0))


def run(*arguments, **environment):
    """What a fresh interpreter prints, with warnings as errors."""
    started = [sys.executable, "-W", "error", *map(str, arguments)]
    done = subprocess.run(started, capture_output=True, text=True, env=os.environ | environment)
    assert done.returncode == 0, done.stderr
    return done.stdout


# the names


@one_of_each
def test_each_family_is_there_with_the_weights_of_the_dense_model(name):
    assert timm.is_model(f"bat_{name}")
    ours, theirs = (timm.models.get_arch_pretrained_cfgs(given) for given in (f"bat_{name}", name))
    assert [f"bat_{tagged}" for tagged in theirs] == list(ours)
    for mine, dense_cfg in zip(ours.values(), theirs.values(), strict=True):
        assert mine.architecture == f"bat_{name}"
        assert asdict(mine) | {"architecture": name} == asdict(dense_cfg)
    assert timm.get_pretrained_cfg(f"bat_{name}").tag == timm.get_pretrained_cfg(name).tag


def test_timm_lists_them():
    names = timm.list_models("bat_*", exclude_filters="bat_resnext*")  # another BAT, timm's own
    assert names == timm.list_models(module="timm_registry")
    assert (
        set(names) == set(timm_registry.__all__) == {f"bat_{name}" for name in timm_registry.DENSE}
    )
    assert {name for name in names if "deit" in name} == {
        f"bat_{name}" for name in timm.list_models(module="deit")
    }
    assert {name for name in names if "dinov2" in name} == {
        f"bat_{name}" for name in timm.list_models("vit_*_dinov2")
    }
    assert timm.list_pretrained("bat_deit*") == [
        f"bat_{name}" for name in timm.list_pretrained("deit*")
    ]
    assert not timm.list_pretrained("bat_lvvit*")


def test_only_families_that_can_be_patched_are_there():
    assert not {
        name for name in timm_registry.DENSE if not name.startswith(("deit", "lvvit", "vit_"))
    }
    with torch.device("meta"):
        for name in timm_registry.DENSE:
            model = timm.create_model(f"bat_{name}", depth=4)
            assert batvit.config_of(model).sites(4) == (1, 2, 3), name


def test_an_entry_point_is_an_attribute_of_its_module():
    entry = model_entrypoint(NAME)
    assert entry is getattr(timm_registry, NAME)
    assert pickle.loads(pickle.dumps(entry)) is entry
    assert entry.__doc__ == "``deit_small_patch16_224`` with fewer tokens."


def test_a_second_import_registers_nothing_again():
    entry = model_entrypoint(NAME)
    names = timm.list_models()
    importlib.reload(timm_registry)
    assert getattr(timm_registry, NAME) is model_entrypoint(NAME) is entry
    assert timm.list_models() == names


# the models


@one_of_each
def test_a_model_is_the_dense_one_patched(name):
    torch.manual_seed(0)
    model = small(f"bat_{name}", keep_rate=0.5)
    torch.manual_seed(0)
    expected = dense(name)
    assert list(model.state_dict()) == list(expected.state_dict())
    assert not torch.equal(model(pictures()), expected(pictures()))
    batvit.patch(expected, keep_rate=0.5, blocks=(1, 2))
    assert batvit.config_of(model) == batvit.config_of(expected)
    assert type(model) is type(expected)
    assert torch.equal(model(pictures()), expected(pictures()))


def test_without_fields_it_is_patched_by_default():
    assert batvit.config_of(small(depth=4, blocks=None)) == batvit.BATConfig.preset()


def test_all_fields_and_the_preset_reach_the_configuration():
    config = batvit.BATConfig(
        tokens=(20, 9),
        blocks=(0, 2),
        centres=0.4,
        pairs=2,
        similarity="keys",
        matching="greedy",
        neighbours=4,
        weight="size",
        size_aware=True,
    )
    fields = {name: value for name, value in config.to_dict().items() if value is not None}
    assert batvit.config_of(small(**fields)) == config
    paper = batvit.config_of(small(depth=4, blocks=None, mode="paper", keep_rate=0.7))
    assert paper == batvit.BATConfig.preset("paper", keep_rate=0.7)


def test_lists_of_the_command_line_become_tuples():
    config = batvit.config_of(small(keep_rate=[0.8, 0.6], blocks=[0, 2]))
    assert (config.keep_rate, config.blocks) == ((0.8, 0.6), (0, 2))
    assert batvit.config_of(small(tokens=[20, 9])).tokens == (20, 9)


def test_a_dense_checkpoint_loads(tmp_path):
    source = dense()
    torch.save({"state_dict": source.state_dict()}, tmp_path / "dense.pth")
    model = small(checkpoint_path=tmp_path / "dense.pth")
    assert all(
        torch.equal(value, source.state_dict()[key]) for key, value in model.state_dict().items()
    )
    assert torch.equal(model(pictures()), batvit.patch(source, blocks=(1, 2))(pictures()))


def test_pretrained_weights_are_adapted_to_classes_and_size():
    overlay = {"state_dict": dense().state_dict(), "num_classes": 5, "input_size": (3, 112, 112)}
    model = small(
        f"{NAME}.fb_in1k",
        pretrained=True,
        pretrained_cfg_overlay=overlay,
        num_classes=2,
        img_size=64,
    )
    assert torch.equal(
        model.blocks[0].attn.qkv.weight, overlay["state_dict"]["blocks.0.attn.qkv.weight"]
    )
    assert model(pictures()[..., :64, :64]).shape == (2, 2)
    assert model.pretrained_cfg["tag"] == "fb_in1k"


@pytest.mark.parametrize("indices", [(0,), (0, 2), 2])
@pytest.mark.parametrize("extra", [{}, {"feature_cls": "getter"}])
def test_features_have_the_full_grid(indices, extra):
    torch.manual_seed(0)
    model = small(features_only=True, out_indices=indices, **extra)
    torch.manual_seed(0)
    whole = small()
    maps = whole.forward_intermediates(
        pictures(), indices=indices, norm=False, intermediates_only=True
    )
    assert [tuple(found.shape) for found in maps] == [(2, 48, 7, 7)] * len(maps)
    for found, expected in zip(model(pictures()), maps, strict=True):
        assert torch.equal(found, expected)


@pytest.mark.skipif(
    not hasattr(timm.models, "get_model_args"),
    reason="this timm does not save what a model was made with",
)
def test_what_timm_saves_it_can_load(tmp_path):
    model = small(keep_rate=[0.8, 0.6])
    timm.models.save_for_hf(model, tmp_path)
    loaded = timm.create_model(f"local-dir:{tmp_path}", pretrained=True).eval()
    assert batvit.config_of(loaded) == batvit.config_of(model)
    assert torch.equal(loaded(pictures()), model(pictures()))
    timm.models.save_for_hf(
        batvit.patch(loaded, keep_rate=0.3, pairs=1, blocks=(1,), align=1), tmp_path
    )
    again = timm.create_model(f"local-dir:{tmp_path}", pretrained=True)
    assert batvit.config_of(again) == batvit.config_of(loaded)
    assert batvit.config_of(again).keep_rate == 0.3
    timm.models.save_for_hf(
        batvit.patch(loaded, mode="paper", keep_rate=0.7, blocks=(1,)), tmp_path
    )
    again = timm.create_model(f"local-dir:{tmp_path}", pretrained=True)
    assert batvit.config_of(again) == batvit.config_of(loaded)


@pytest.mark.skipif(
    not hasattr(timm.models, "resolve_model_input_args"), reason="timm's scripts do not call it yet"
)
def test_what_timms_scripts_make_of_their_options_can_be_built():
    arguments = timm.models.resolve_model_input_args(
        f"{NAME}.fb_in1k", {"img_size": 64}, depth=4, keep_rate=0.5
    )
    model = timm.create_model(**arguments)
    assert batvit.config_of(model).keep_rate == 0.5
    assert model.patch_embed.img_size == (64, 64)
    assert model.pretrained_cfg["hf_hub_id"] == "timm/deit_small_patch16_224.fb_in1k"


# what is refused


@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        ({"keep_rate": 1.5}, ValueError, r"keep_rate must lie in \(0, 1\], got 1.5"),
        (
            {"mode": "fast"},
            ValueError,
            "mode must be one of paper, training-free, gradual, got 'fast'",
        ),
        (
            {"blocks": (1, 9)},
            ValueError,
            "blocks must lie in 0 .. 2 for a model of 3 blocks, got 9",
        ),
        ({"keeprate": 0.7}, TypeError, "unexpected keyword argument 'keeprate'"),
        (
            {"features_only": True, "feature_cls": "hook"},
            ValueError,
            "feature_cls must be 'getter', got 'hook'",
        ),
    ],
)
def test_errors(settings, error, message):
    with pytest.raises(error, match=message):
        small(**settings)


def test_unknown_tags_are_refused_by_timm():
    with pytest.raises(RuntimeError, match=r"Invalid pretrained tag \(none\)"):
        small(f"{NAME}.none")
    with pytest.raises(
        RuntimeError, match="No pretrained weights exist for bat_lvvit_small_patch16_224"
    ):
        small("bat_lvvit_small_patch16_224", pretrained=True)


OFFLINE = """
import timm, batvit.models
for name in ("deit_tiny_patch16_224", "bat_deit_tiny_patch16_224"):
    try:
        timm.create_model(name, pretrained=True, depth=4)
    except Exception as error:
        print(type(error).__name__, *str(error).split())
"""


def test_weights_that_cannot_be_fetched_are_timms_error(tmp_path):
    theirs, ours = run("-c", OFFLINE, HF_HUB_OFFLINE="1", HF_HOME=str(tmp_path)).splitlines()
    assert ours == theirs
    assert "Error" in ours


# timm's scripts

SCRIPT = """
import argparse, json, sys
import timm, torch
from timm.data import create_dataset, create_loader, resolve_data_config
from timm.optim import create_optimizer_v2
from timm.utils import ParseKwargs, accuracy
import beside

parser = argparse.ArgumentParser()
parser.add_argument("data")
parser.add_argument("--model")
parser.add_argument("--img-size", type=int)
parser.add_argument("--model-kwargs", nargs="*", default={}, action=ParseKwargs)
args = parser.parse_args()

torch.set_num_threads(1)
torch.manual_seed(0)
model = timm.create_model(args.model, **args.model_kwargs)
config = resolve_data_config(vars(args), model=model)
dataset = create_dataset(name="", root=args.data, split="validation")
loader = create_loader(
    dataset, config["input_size"], 4, use_prefetcher=False, num_workers=0, persistent_workers=False,
    mean=config["mean"], std=config["std"], crop_pct=config["crop_pct"],
    interpolation=config["interpolation"],
)
optimizer = create_optimizer_v2(model, opt="adamw", lr=1e-3, weight_decay=0.05)
losses = []
for _ in range(2):
    for images, target in loader:
        loss = torch.nn.functional.cross_entropy(model.train()(images), target)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
with torch.inference_mode():
    (top1,) = accuracy(model.eval()(images), target, topk=(1,))
print(json.dumps({
    "losses": losses, "top1": top1.item(), "shape": list(images.shape),
    "blocks": [type(b).__name__ for b in model.blocks],
    "argv": sys.argv, "path": sys.path[0], "name": __name__, "file": __file__,
}))
"""


@pytest.fixture
def script(tmp_path):
    """A script with a module and pictures of two classes beside it."""
    for label, shade in (("dark", 40), ("light", 210)):
        folder = tmp_path / "pictures" / "validation" / label
        folder.mkdir(parents=True)
        for i in range(2):
            Image.fromarray(np.full((80, 80, 3), shade + i, dtype=np.uint8)).save(
                folder / f"{i}.png"
            )
    (tmp_path / "beside.py").touch()
    path = tmp_path / "script.py"
    path.write_text(SCRIPT)
    return path


def test_a_script_of_timm_trains_and_validates(script):
    sizes = ["img_size=64", "depth=3", "embed_dim=48", "num_heads=3", "num_classes=2"]
    options = [
        "--model",
        NAME,
        "--img-size",
        "64",
        "--model-kwargs",
        "keep_rate=0.7",
        "blocks=[1,2]",
        *sizes,
    ]
    arguments = [str(script.parent / "pictures"), *options]
    found = json.loads(run("-m", "batvit.models", script, *arguments))
    assert found["blocks"] == ["Block", "ReducedTimmBlock", "ReducedTimmBlock"]
    assert found["shape"] == [4, 3, 64, 64]
    assert found["losses"][1] < found["losses"][0]
    assert found["top1"] in (0, 25, 50, 75, 100)
    assert found["argv"] == [str(script), *arguments]
    assert found["path"] == str(script.parent.resolve())
    assert (found["name"], found["file"]) == ("__main__", str(script))


def command(monkeypatch, *arguments):
    """What ``python -m batvit.models`` does with arguments, in this interpreter; its exit code."""
    monkeypatch.setattr(sys, "argv", ["batvit.models", *map(str, arguments)])
    monkeypatch.setattr(sys, "path", [*sys.path])
    with pytest.raises(SystemExit) as stop:
        runpy.run_module("batvit.models", run_name="__main__")
    return stop.value.code


@pytest.mark.parametrize(
    ("arguments", "message"),
    [((), "no script given"), (("none.py", "x"), "no such script: none.py")],
)
def test_a_missing_script_is_one_line(arguments, message, monkeypatch, capsys):
    assert command(monkeypatch, *arguments) == 2
    output, error = capsys.readouterr()
    assert output == ""
    assert error.startswith(f"python -m batvit.models: {message}; give one")
    assert error.count("\n") == 1


def test_a_script_that_fails_keeps_its_exit_code(tmp_path, monkeypatch):
    (tmp_path / "fails.py").write_text("import sys\nraise SystemExit(sys.argv[1])")
    assert command(monkeypatch, tmp_path / "fails.py", "3") == "3"
