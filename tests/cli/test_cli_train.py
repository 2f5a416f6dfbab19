"""batvit train: from a folder of pictures to a checkpoint that the other commands take as it is."""

import json
import subprocess
import sys
from functools import partial

import pytest
import timm
import torch
from PIL import Image
from rich.console import Console
from safetensors.torch import load_file, save_file

import batvit
from batvit.cli import console, main
from batvit.models.create import create_model
from batvit.training.recipes import RECIPES, Recipe

MODEL = "test_vit"
COLOURS = {"blue": (0, 0, 255), "green": (0, 255, 0), "red": (255, 0, 0)}


@pytest.fixture(autouse=True)
def _threads_as_before():
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def folder(tmp_path):
    for part, number in (("train", 8), ("val", 2)):
        for name, colour in COLOURS.items():
            (tmp_path / "data" / part / name).mkdir(parents=True)
            for i in range(number):
                shade = tuple(channel - 10 * i if channel else 0 for channel in colour)
                Image.new("RGB", (40, 40), shade).save(tmp_path / "data" / part / name / f"{i}.png")
    return tmp_path / "data"


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """Of 1,000 classes, as one downloads them."""
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("weights") / "weights.safetensors"
    save_file(timm.create_model(MODEL).state_dict(), path)
    return path


def train(data, output, *more):
    common = (
        "--img-size",
        "64",
        "--epochs",
        "2",
        "--batch-size",
        "8",
        "--lr",
        "1e-3",
        "--device",
        "cpu",
    )
    return main(
        [
            "train",
            "--model",
            MODEL,
            "--data",
            str(data),
            "--output",
            str(output),
            *common,
            *map(str, more),
        ]
    )


def test_a_fine_tuned_model_is_evaluated_as_it_was_trained(folder, weights, tmp_path, capsys):
    run, result = tmp_path / "run", tmp_path / "train.json"
    more = (
        "--checkpoint",
        weights,
        "--mode",
        "paper",
        "--keep-rate",
        "0.6",
        "--json",
        result,
        "--threads",
        "1",
    )
    assert train(folder, run, *more) == 0
    out, err = capsys.readouterr()
    assert err == "a new head for 3 classes takes the place of the one for 1000\n"
    lines = out.splitlines()
    assert len(lines) == 3
    assert lines[0].startswith("epoch 1/2  loss ")
    assert lines[2].startswith("best ")
    assert lines[2].endswith(str(run / "best.safetensors"))
    found = json.loads(result.read_text())
    assert found["train"]["lr"] == 1e-3
    assert found["best"] == max(found["epochs"], key=lambda epoch: epoch["top1"])
    assert batvit.BATConfig.from_dict(found["config"]) == batvit.BATConfig.preset(
        "paper", keep_rate=0.6
    )
    for name in ("best", "last"):
        assert batvit.BATConfig.beside(run / f"{name}.safetensors") == batvit.BATConfig.preset(
            "paper", keep_rate=0.6
        )

    evaluation = tmp_path / "eval.json"
    common = (
        "--num-classes",
        "3",
        "--img-size",
        "64",
        "--device",
        "cpu",
        "--json",
        str(evaluation),
    )
    best = str(run / "best.safetensors")
    assert main(["eval", MODEL, "--data", str(folder / "val"), "--checkpoint", best, *common]) == 0
    assert "configuration from" in capsys.readouterr().err
    again = json.loads(evaluation.read_text())
    assert again["config"] == found["config"]
    assert again["top1"] == pytest.approx(found["best"]["top1"])


def test_a_fitting_head_is_kept_and_dense_has_no_configuration(folder, weights, tmp_path, capsys):
    torch.manual_seed(1)
    own = tmp_path / "own.safetensors"
    state = timm.create_model(MODEL, num_classes=3).state_dict()
    save_file(state, own)
    assert (
        train(
            folder,
            tmp_path / "run",
            "--checkpoint",
            own,
            "--dense",
            "--lr",
            "1e-9",
            "--min-lr",
            "0",
        )
        == 0
    )
    assert capsys.readouterr().err == ""
    assert sorted(path.name for path in (tmp_path / "run").glob("[!.]*")) == [
        "best.safetensors",
        "checkpoints",
        "last.safetensors",
        "log.jsonl",
        "run.json",
        "summary.csv",
    ]
    trained = load_file(tmp_path / "run" / "last.safetensors")
    assert torch.allclose(trained["head.weight"], state["head.weight"], atol=1e-6)


def test_downloaded_weights_get_a_new_head(folder, tmp_path, monkeypatch, capsys):
    create = timm.create_model
    monkeypatch.setattr(timm, "create_model", lambda name, pretrained, **more: create(name, **more))
    assert train(folder, tmp_path / "run") == 0
    assert "a new head for 3 classes" in capsys.readouterr().err


def test_digits_need_no_folder_and_a_seed_repeats_the_new_head(weights, tmp_path):
    for name in ("one", "two"):
        more = ("--checkpoint", weights, "--img-size", "32")
        assert train("digits", tmp_path / name, *more, "--batch-size", "256", "--epochs", "1") == 0
    first, second = (load_file(tmp_path / name / "last.safetensors") for name in ("one", "two"))
    assert first["head.weight"].shape == (10, 64)
    assert all(torch.equal(first[key], second[key]) for key in first)


def test_a_terminal_sees_a_bar_that_makes_way(folder, weights, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(
        console,
        "stderr",
        Console(stderr=True, force_terminal=True, width=80),
    )
    assert train(folder, tmp_path / "run", "--checkpoint", weights) == 0
    out, err = capsys.readouterr()
    assert "6/6" in err
    assert len(out.splitlines()) == 3


def test_what_cannot_be_trained_is_refused_in_one_line(folder, weights, tmp_path, capsys):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "log.jsonl").write_text("mine")
    (tmp_path / "map.txt").write_text("blue\ngreen\n")
    (tmp_path / "half" / "train" / "red").mkdir(parents=True)
    for part in ("train", "val"):
        for name in ("blue", "red"):
            (tmp_path / "single" / part / name).mkdir(parents=True)
            Image.new("RGB", (40, 40)).save(tmp_path / "single" / part / name / "0.png")
    cases = [
        (
            (folder, tmp_path / "run"),
            "already holds a run (log.jsonl); go on with it by --resume, or name another folder",
        ),
        (
            (folder, tmp_path / "new", "--class-map", tmp_path / "map.txt"),
            "folders are not named in the class map, the first is",
        ),
        (
            (folder, tmp_path / "new", "--dense", "--keep-rate", "0.5"),
            "--dense trains without reduction, but --keep-rate 0.5 is given; leave one out",
        ),
        ((folder, tmp_path / "new", "--lr", "-1"), "lr must lie in (0, 1000], got -1.0"),
        ((folder, tmp_path / "new", "--json", tmp_path / "nowhere" / "a.json"), "the folder"),
        ((tmp_path / "half", tmp_path / "new"), "holds no pictures"),
        (
            (folder, tmp_path / "new", "--batch-size", "25"),
            "--batch-size 25 is more than the 24 training pictures",
        ),
        (
            (tmp_path / "single", tmp_path / "new"),
            "--batch-size 8 is more than the 2 training pictures; lower it to 2 or less",
        ),
        ((tmp_path / "single", folder / "train" / "red" / "0.png"), "it is a file; name a folder"),
        (
            (folder, tmp_path / "new", "--checkpoint", tmp_path / "none.pth"),
            "none.pth: no such file",
        ),
    ]
    for arguments, message in cases:
        assert train(*arguments[:2], "--checkpoint", weights, *arguments[2:]) == 2
        err = capsys.readouterr().err.splitlines()
        assert err[-1].startswith("batvit train: ")
        assert message in err[-1]
    assert not (tmp_path / "new").exists()


def test_an_unknown_model_is_refused(folder, tmp_path, capsys):
    assert (
        main(
            [
                "train",
                "--model",
                "test_vitt",
                "--data",
                str(folder),
                "--output",
                str(tmp_path / "run"),
            ]
        )
        == 2
    )
    assert "unknown model 'test_vitt'" in capsys.readouterr().err


def test_folders_of_different_classes_are_refused(folder, weights, tmp_path, capsys):
    (folder / "val" / "red").rename(folder / "val" / "rot")
    assert train(folder, tmp_path / "run", "--checkpoint", weights) == 2
    assert (
        "train/rot: holds no pictures; put some there, or remove the class from"
        in capsys.readouterr().err
    )


def test_a_recipe_brings_what_no_option_says(folder, weights, tmp_path, capsys):
    arguments = [
        "train",
        "--recipe",
        "your_data",
        "--model",
        MODEL,
        "--checkpoint",
        str(weights),
        "--data",
        str(folder),
    ]
    arguments += [
        "--output",
        str(tmp_path / "run"),
        "--img-size",
        "64",
        "--epochs",
        "1",
        "--batch-size",
        "8",
        "--device",
        "cpu",
    ]
    assert main([*arguments, "--keep-rate", "0.6"]) == 0
    metadata = json.loads((tmp_path / "run" / "run.json").read_text())
    assert (metadata["recipe"], metadata["model"], metadata["classes"], metadata["img_size"]) == (
        "your_data",
        MODEL,
        3,
        [64],
    )
    assert (
        metadata["train"]["epochs"],
        metadata["train"]["layer_decay"],
        metadata["train"]["precision"],
    ) == (1, 0.75, "bf16")
    assert batvit.BATConfig.from_dict(metadata["config"]) == batvit.BATConfig.preset(keep_rate=0.6)
    assert metadata["git_commit"]
    assert metadata["command"]


def test_a_run_goes_on_with_the_same_command(folder, weights, tmp_path, capsys):
    common = ("--checkpoint", weights, "--mode", "paper", "--resume")
    assert train(folder, tmp_path / "run", *common) == 0
    first = capsys.readouterr().out
    assert train(folder, tmp_path / "run", *common) == 0
    # it was finished
    assert capsys.readouterr().out.splitlines() == first.splitlines()[-1:]
    assert train(folder, tmp_path / "run", *common, "--keep-rate", "0.5") == 2
    assert "begun with config.keep_rate = [0.7" in capsys.readouterr().err


def test_a_teacher_is_read_where_it_is_wanted(folder, weights, tmp_path, capsys):
    own = tmp_path / "own.safetensors"
    save_file(timm.create_model(MODEL, num_classes=3).state_dict(), own)
    common = ("--checkpoint", weights, "--teacher", own)
    assert train(folder, tmp_path / "run", *common) == 2
    assert (
        "nothing is to be learnt from it; give --distill soft, or --distill hard, too"
        in capsys.readouterr().err
    )
    assert (
        train(folder, tmp_path / "run", *common, "--distill", "hard", "--keep-warmup-epochs", "1")
        == 0
    )
    assert train(folder, tmp_path / "other", "--checkpoint", weights, "--distill", "soft") == 0
    assert json.loads((tmp_path / "run" / "run.json").read_text())["teacher"] == str(own)


def test_the_patches_of_an_lvvit_have_labels_of_their_own(folder, tmp_path, monkeypatch):
    # the recipe's own model, of four blocks of 48 channels
    monkeypatch.setattr(
        timm, "create_model", partial(timm.create_model, depth=4, embed_dim=48, num_heads=3)
    )
    arguments = [
        "train",
        "--recipe",
        "lvvit_small",
        "--data",
        str(folder),
        "--output",
        str(tmp_path / "run"),
        "--device",
        "cpu",
    ]
    arguments += [
        "--img-size",
        "64",
        "--epochs",
        "1",
        "--batch-size",
        "6",
        "--precision",
        "fp32",
        "--workers",
        "0",
    ]
    torch.manual_seed(0)
    own = tmp_path / "own.safetensors"
    save_file(create_model("lvvit_small_patch16_224", num_classes=3).state_dict(), own)
    assert main([*arguments, "--checkpoint", str(own)]) == 0
    assert json.loads((tmp_path / "run" / "run.json").read_text())["train"]["token_labels"] == 0.5


def test_without_model_or_recipe_it_says_what_to_give(folder, tmp_path, capsys):
    assert main(["train", "--data", str(folder), "--output", str(tmp_path / "run")]) == 2
    assert "give --model MODEL, or --recipe NAME, which brings one" in capsys.readouterr().err


def test_every_field_of_the_reduction_of_a_recipe_is_honoured(
    folder, weights, tmp_path, monkeypatch
):
    recipe = Recipe(
        about="none",
        model=MODEL,
        train={"epochs": 1, "batch_size": 8, "precision": "fp32"},
        reduction={
            "mode": "training-free",
            "neighbours": None,
            "tokens": (12, 8),
            "blocks": (2, 4),
            "centres": 2,
            "similarity": "keys",
            "keep_norm": True,
        },
    )
    monkeypatch.setitem(RECIPES, "own", recipe)
    common = ["train", "--recipe", "own", "--checkpoint", str(weights), "--data", str(folder)]
    common += ["--img-size", "64", "--device", "cpu"]
    assert main([*common, "--output", str(tmp_path / "run")]) == 0
    config = json.loads((tmp_path / "run" / "run.json").read_text())["config"]
    expected = batvit.BATConfig.preset(**recipe.reduction)
    assert batvit.BATConfig.from_dict(config) == expected
    # options win, and a keep rate takes the place of tokens
    given = ["--keep-rate", "0.8", "--no-keep-norm", "--blocks", "1"]
    assert main([*common, "--output", str(tmp_path / "other"), *given]) == 0
    config = json.loads((tmp_path / "other" / "run.json").read_text())["config"]
    fields = recipe.reduction | {"keep_rate": 0.8, "keep_norm": False, "blocks": (1,)}
    del fields["tokens"]
    assert batvit.BATConfig.from_dict(config) == batvit.BATConfig.preset(**fields)


def test_the_help_needs_no_torch():
    code = (
        "import sys\n"
        "from batvit.cli import main\n"
        "try:\n"
        "    main(['train', '--help'])\n"
        "except SystemExit:\n"
        "    print('torch' in sys.modules)\n"
    )
    found = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert found.stdout.splitlines()[-1] == "False"
