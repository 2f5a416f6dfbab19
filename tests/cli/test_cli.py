"""The command line: what it writes, and one clear line for everything it refuses."""

import argparse
import importlib
import json
import os
import pickle
import re
import runpy
import struct
import subprocess
import sys
import zlib

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from torch._dynamo.exc import TorchRuntimeError, Unsupported
from torch._inductor.exc import InductorError

import batvit
from batvit.cli import COMMANDS, main, options
from batvit.cli.bench import _is_of_the_compiler
from batvit.cli.field_help import field_help

NAME = "deit_tiny_patch16_224"
SMALL = ("--img-size", "64", "--num-classes", "3")


@pytest.fixture(autouse=True)
def _offline(monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)


@pytest.fixture(scope="session")
def weights(tmp_path_factory):
    path = tmp_path_factory.mktemp("weights") / "deit.safetensors"
    torch.manual_seed(0)
    save_file(timm.create_model(NAME, num_classes=3).state_dict(), path)
    return path


@pytest.fixture
def data(tmp_path):
    """Two pictures of each of three classes."""
    for i, label in enumerate(("bird", "cat", "dog")):
        (tmp_path / "data" / label).mkdir(parents=True)
        for j in range(2):
            noise(2 * i + j).save(tmp_path / "data" / label / f"{j}.jpg")
    return tmp_path / "data"


def noise(seed=0):
    return Image.fromarray(
        np.random.default_rng(seed).integers(0, 256, (48, 64, 3), dtype=np.uint8)
    )


def cut(path):
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])


def bomb(path):
    def chunk(kind, content):
        return (
            struct.pack(">I", len(content))
            + kind
            + content
            + struct.pack(">I", zlib.crc32(kind + content))
        )

    head = chunk(b"IHDR", struct.pack(">IIBBBBB", 30_000, 30_000, 8, 0, 0, 0, 0))
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n" + head + chunk(b"IDAT", zlib.compress(b"\0")) + chunk(b"IEND", b"")
    )


class Payload:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


def ends(*arguments):
    """How a command ends: argparse leaves by an exception, the rest returns."""
    try:
        return main([str(argument) for argument in arguments])
    except SystemExit as error:
        return error.code


@pytest.fixture
def refuses(capsys):
    """Check that a command ends with 2 and one line on standard error, and nothing else; give the line."""

    def check(*arguments):
        assert ends(*arguments) == 2
        out, err = capsys.readouterr()
        assert out == ""
        assert err.endswith("\n")
        assert err.count("\n") == 1, err
        assert "Traceback" not in err
        assert err.startswith("batvit")
        return err

    return check


@pytest.fixture
def writes(capsys, tmp_path):
    """Run a command that must work; give what it prints and the JSON it writes."""

    def check(*arguments):
        path = tmp_path / "result.json"
        assert ends(*arguments, "--json", path) == 0
        out, err = capsys.readouterr()
        return out, err, json.loads(path.read_text())

    return check


# main


def test_help_names_every_command(capsys):
    assert ends("--help") == 0
    out = capsys.readouterr().out
    assert all(re.search(rf"^    {name} +\w", out, re.MULTILINE) for name in COMMANDS)


@pytest.mark.parametrize("command", ["info", "eval", "bench", "draw"])
def test_help_of_a_command_explains_every_field(capsys, command):
    assert ends(command, "--help") == 0
    out = " ".join(capsys.readouterr().out.split())
    texts = field_help(batvit.BATConfig)
    assert set(texts) == set(batvit.BATConfig().to_dict())
    for name, text in texts.items():
        assert f"--{name.replace('_', '-')}" in out
        assert text.replace("%%", "%").replace("-", "") in out.replace("- ", "").replace("-", "")
    assert "--no-size-aware" in out


def test_help_has_the_value_of_every_preset(capsys):
    assert ends("info", "--help") == 0
    # lines may break at hyphens
    out = re.sub(r"[\s-]+", "", capsys.readouterr().out)
    assert "(paper:0.1,trainingfree:0.1,gradual:0.02)" in out
    assert "(paper:None,trainingfree:2,gradual:2)" in out
    assert "thekeysoftheattention(tokens)" in out


def test_a_preset_may_be_written_as_in_python(writes):
    *_, found = writes("info", NAME, "--mode", "training-free")
    assert batvit.BATConfig.from_dict(found["config"]) == batvit.BATConfig.preset("training-free")


@pytest.mark.parametrize("command", ["info", "eval", "bench", "draw"])
def test_every_option_has_a_help_text(command):
    parser = argparse.ArgumentParser()
    importlib.import_module(f"batvit.cli.{command}").add_arguments(parser)
    assert [action.dest for action in parser._actions if not action.help] == []


def test_the_version_is_that_of_the_package(capsys):
    assert ends("--version") == 0
    assert capsys.readouterr().out == f"batvit {batvit.__version__}\n"


def test_the_package_runs_as_a_module(capsys, monkeypatch):
    monkeypatch.setattr("sys.argv", ["batvit", "--version"])
    with pytest.raises(SystemExit) as ended:
        runpy.run_module("batvit", run_name="__main__")
    assert ended.value.code == 0
    assert capsys.readouterr().out.startswith("batvit ")


def test_without_or_with_a_wrong_command_the_commands_are_named(refuses):
    assert refuses() == "batvit: the following arguments are required: COMMAND; see batvit --help\n"
    assert "invalid choice: 'tain' (choose from 'demo', 'info'" in refuses("tain")
    assert "unrecognized arguments: --nonsense; see batvit --help" in refuses(
        "info", NAME, "--nonsense"
    )
    assert (
        refuses("info")
        == "batvit info: the following arguments are required: MODEL; see batvit info --help\n"
    )


def test_a_command_imports_no_more_than_it_needs(monkeypatch):
    imported = []
    load = importlib.import_module
    monkeypatch.setattr(
        "batvit.cli.importlib.import_module", lambda name: imported.append(name) or load(name)
    )
    assert ends("info", "--help") == 0
    assert imported == ["batvit.cli.info"]
    assert ends("--help") == 0
    assert len(imported) == 1 + len(COMMANDS)


def test_an_interrupt_is_one_line(capsys, monkeypatch):
    def interrupted(*arguments, **settings):
        raise KeyboardInterrupt

    monkeypatch.setattr("batvit.cli.info.info", interrupted)
    assert ends("info", NAME) == 130
    assert capsys.readouterr().err == "batvit info: interrupted\n"


def test_a_bug_keeps_its_traceback(monkeypatch):
    def broken(*arguments, **settings):
        raise RuntimeError("a bug")

    monkeypatch.setattr("batvit.cli.info.info", broken)
    with pytest.raises(RuntimeError, match="a bug"):
        main(["info", NAME])


@pytest.mark.parametrize("batch", [10**12, 10**17])
def test_too_little_memory_is_one_line_with_the_remedy(refuses, batch):
    said = refuses("bench", NAME, *SMALL, "--batch-size", batch)
    assert "not enough memory; lower --batch-size or --img-size (" in said


def test_an_error_of_memory_may_say_nothing(monkeypatch, refuses):
    def broken(*arguments, **settings):
        raise MemoryError

    monkeypatch.setattr("batvit.cli.info.info", broken)
    assert "not enough memory; lower --batch-size or --img-size (MemoryError)" in refuses(
        "info", NAME
    )


# info

LOGS = {0.7: 3.0048, 0.6: 2.5832, 0.5: 2.3444, 0.4: 2.0830, 0.3: 1.8233, 0.2: 1.6451}


@pytest.mark.parametrize("keep_rate", [0.7, 0.2])
def test_info_gives_the_numbers_of_the_paper(writes, keep_rate):
    out, err, fields = writes(
        "info", "deit_small_patch16_224", "--mode", "paper", "--keep-rate", keep_rate
    )
    assert fields["gmacs"] == pytest.approx(LOGS[keep_rate], rel=0.005)
    assert fields["dense_gmacs"] == pytest.approx(4.6, abs=0.05)
    assert (fields["model"], fields["param_count"], fields["img_size"]) == (
        "deit_small_patch16_224",
        22_050_664,
        [224, 224],
    )
    assert fields["mac_ratio"] == pytest.approx(fields["dense_gmacs"] / fields["gmacs"])
    assert (fields["config"]["weight"], fields["config"]["size_aware"]) == ("importance", False)
    assert "deit_small_patch16_224 at 224 x 224: 22,050,664 parameters" in out
    assert err == ""


def test_info_of_the_small_model_of_the_paper(writes):
    *_, fields = writes("info", NAME, "--mode", "paper", "--keep-rate", "0.7")
    assert fields["gmacs"] == pytest.approx(0.81, rel=0.01)
    *_, fields = writes("info", NAME, "--mode", "paper", "--keep-rate", "0.64")
    assert fields["gmacs"] / fields["dense_gmacs"] <= 0.6


def test_info_at_another_size_of_image_and_head(writes):
    out, _, fields = writes("info", NAME, "--img-size", 64, 96, "--num-classes", 7)
    assert fields["img_size"] == [64, 96]
    assert fields["blocks"][0]["tokens_in"] == 24
    assert fields["param_count"] == sum(
        p.numel() for p in timm.create_model(NAME, img_size=(64, 96), num_classes=7).parameters()
    )
    assert out.splitlines()[-1].startswith(f"{NAME} at 64 x 96: ")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["deit_tny"], "unknown model 'deit_tny'; did you mean deit_tiny"),
        (
            ["swin_tiny_patch4_window7_224"],
            "cannot reduce the tokens of timm.models.swin_transformer.SwinTransformer: no adapter knows",
        ),
        (
            ["swinv2_cr_tiny_224"],
            "cannot reduce the tokens of timm.models.swin_transformer_v2_cr.SwinTransformerV2Cr: no",
        ),
        ([NAME, "--keep-rate", "1.5"], "keep_rate must lie in (0, 1], got 1.5; 1 keeps everything"),
        ([NAME, "--keep-rate", "0.0"], "keep_rate must lie in (0, 1], got 0.0"),
        ([NAME, "--keep-rate", "nan"], "keep_rate must lie in (0, 1], got nan"),
        (
            [NAME, "--keep-rate", "much"],
            "--keep-rate: expected a number, or several with commas, got 'much'; see batvit info",
        ),
        (
            [NAME, "--keep-rate", "0.5", "--tokens", "9,5,3"],
            "give keep_rate or tokens, not both; got 0.5 and (9, 5, 3)",
        ),
        (
            [NAME, "--blocks", "3,6,40"],
            "blocks must lie in 0 .. 11 for a model of 12 blocks, got 40",
        ),
        ([NAME, "--blocks", "6,3"], "blocks must rise and not repeat, got (6, 3); sort them"),
        ([NAME, "--tokens", "500,50,5"], "500 tokens cannot go on where 196 come in; lower tokens"),
        ([NAME, "--tokens", "9,5,0"], "tokens must be 1 or more, got 0"),
        ([NAME, "--centres", "900"], "900 centres do not fit into"),
        (
            [NAME, "--pairs", "0.9"],
            "pairs as a share must lie in 0.0 .. 0.5, got 0.9; a count is an int",
        ),
        ([NAME, "--neighbours", "0"], "neighbours must be 1 or more, got 0"),
        (
            [NAME, "--mode", "fast"],
            "--mode: invalid choice: 'fast' (choose from 'paper', 'training-free', 'gradual'); see batvit info",
        ),
        ([NAME, "--method", "best"], "--method: invalid choice: 'best' (choose from 'bat'"),
        ([NAME, "--img-size", "0"], "--img-size: expected an integer of 1 or more, got '0'"),
        ([NAME, "--img-size", "64.5"], "--img-size: expected an integer of 1 or more, got '64.5'"),
        ([NAME, "--img-size", "64", "64", "3"], "--img-size takes one or two numbers, got 64 64 3"),
        (
            [NAME, "--img-size", "65"],
            "65 x 65 pixels cannot be cut into the 16 x 16 patches of deit_tiny_patch16_224; give mul",
        ),
        (
            [NAME, "--num-classes", "-1"],
            "--num-classes: expected an integer of 0 or more, got '-1'",
        ),
        ([NAME, "--checkpoint", "/nowhere/x.safetensors"], "/nowhere/x.safetensors: no such file"),
        ([NAME, "--config", "/nowhere/x.json"], "/nowhere/x.json: no such file"),
        (
            [NAME, "--config", "/nowhere/x.json", "--mode", "paper"],
            "give --config or --mode, not both",
        ),
    ],
)
def test_info_refuses(refuses, tmp_path, arguments, said):
    assert said in refuses("info", *arguments, "--json", tmp_path / "x.json")
    assert not list(tmp_path.iterdir())


@pytest.mark.unchecked
@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--keep-rate", "0"], "keep_rate must lie in (0, 1], got 0;"),
        (["--blocks", "3.5"], "blocks must hold integers, got 3.5 (float)"),
        (["--tokens", "9.5,5,3"], "tokens must hold integers, got 9.5 (float)"),
        (["--neighbours", "0.5"], "neighbours must hold integers, got 0.5 (float)"),
        (["--centres", "0.1,0.2"], "centres must be a number, got (0.1, 0.2) (tuple)"),
    ],
)
def test_numbers_of_the_wrong_type_are_refused(refuses, arguments, said):
    assert said in refuses("info", NAME, *arguments)


@pytest.mark.unchecked
def test_an_integer_is_a_keep_rate_too(writes):
    assert writes("info", NAME, "--keep-rate", "1")[2]["mac_ratio"] == 1


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("{", "not a JSON file ("),
        ("[1]", "a BATConfig is a JSON object, found list"),
        ('{"keep": 0.5}', "unknown field 'keep' in a BATConfig; the fields are keep_rate, tokens"),
        ('{"keep_rate": 7.5}', "keep_rate must lie in (0, 1], got 7.5"),
    ],
)
def test_a_bad_configuration_file_is_named(refuses, tmp_path, content, said):
    path = tmp_path / "bat.json"
    path.write_text(content)
    assert refuses("info", NAME, "--config", path).startswith(f"batvit info: {path}: {said}")


# options


def parsed(*arguments):
    parser = argparse.ArgumentParser()
    options.add_model(parser)
    options.add_config(parser)
    return options.config(parser.parse_args([NAME, *map(str, arguments)]))


def test_options_are_fields_of_a_preset():
    assert parsed() == batvit.BATConfig.preset()
    assert parsed("--mode", "paper", "--keep-rate", "0.5") == batvit.BATConfig.preset(
        "paper", keep_rate=0.5
    )
    wanted = {
        "keep_rate": (0.9, 0.8),
        "blocks": (2, 5),
        "similarity": "keys",
        "matching": "greedy",
        "weight": "size",
    }
    given = (
        "--keep-rate",
        "0.9,0.8",
        "--blocks",
        "2,5",
        "--similarity",
        "keys",
        "--matching",
        "greedy",
        "--weight",
        "size",
    )
    assert parsed(*given) == batvit.BATConfig.preset(**wanted)
    assert parsed("--method", "topk", "--neighbours", "3") == batvit.BATConfig.preset(
        method="topk", neighbours=3
    )


def test_one_number_is_a_site_of_its_own():
    assert parsed("--tokens", "9").tokens == (9,)
    assert parsed("--blocks", "3").blocks == (3,)


@pytest.mark.parametrize(
    ("text", "value"), [("10", 10), ("0.5", 0.5), ("1e-1", 0.1), ("0", 0), ("0.0", 0.0)]
)
@pytest.mark.parametrize("field", ["pairs", "centres"])
def test_counts_and_shares_are_told_apart(field, text, value):
    found = getattr(parsed(f"--{field}", text), field)
    assert (found, type(found)) == (value, type(value))


def test_size_awareness_is_switched_both_ways():
    assert parsed("--mode", "paper", "--size-aware").size_aware
    assert not parsed("--no-size-aware").size_aware
    assert parsed().size_aware


def test_a_configuration_file_is_used_and_options_change_it(tmp_path):
    path = batvit.BATConfig(keep_rate=0.5, similarity="keys").save(tmp_path / "bat.json")
    assert parsed("--config", path) == batvit.BATConfig(keep_rate=0.5, similarity="keys")
    assert parsed("--config", path, "--pairs", "3") == batvit.BATConfig(
        keep_rate=0.5, similarity="keys", pairs=3
    )
    # tokens take the place of a keep rate, and the other way round
    assert parsed("--config", path, "--tokens", "9,5,3") == batvit.BATConfig(
        tokens=(9, 5, 3), similarity="keys"
    )
    batvit.BATConfig(tokens=(9, 5, 3)).save(path)
    assert parsed("--config", path, "--keep-rate", "0.4") == batvit.BATConfig(keep_rate=0.4)


def test_the_configuration_beside_a_checkpoint_is_used_unless_options_are_given(tmp_path, capsys):
    checkpoint = tmp_path / "model.safetensors"
    saved = batvit.BATConfig(keep_rate=0.5, similarity="keys")
    assert parsed("--checkpoint", checkpoint) == batvit.BATConfig.preset()
    assert capsys.readouterr().err == ""
    path = saved.save(batvit.BATConfig.path_beside(checkpoint))
    assert parsed("--checkpoint", checkpoint) == saved
    assert capsys.readouterr().err == f"configuration from {path}\n"
    for given in (("--keep-rate", "0.4"), ("--mode", "paper"), ("--no-size-aware",)):
        assert parsed("--checkpoint", checkpoint, *given) == parsed(*given)
        assert capsys.readouterr().err == f"reduction options are given, so {path} is not used\n"
    other = batvit.BATConfig(keep_rate=0.3).save(tmp_path / "other.json")
    assert parsed("--checkpoint", checkpoint, "--config", other) == batvit.BATConfig(keep_rate=0.3)


# outputs


@pytest.mark.parametrize("command", ["info", "eval", "bench", "draw"])
def test_an_output_that_cannot_be_written_is_refused_before_any_work(
    refuses, tmp_path, monkeypatch, command
):
    monkeypatch.setattr(timm, "create_model", lambda *a, **k: pytest.fail("a model was created"))
    more = {"eval": ("--data", tmp_path), "draw": (tmp_path / "x.jpg",)}.get(command, ())
    said = refuses(command, NAME, *more, "--json", tmp_path / "nowhere" / "x.json")
    assert (
        f"cannot write {tmp_path / 'nowhere' / 'x.json'}: the folder {tmp_path / 'nowhere'} does not exist; create it"
        in said
    )
    assert "it is a folder; name a file in it" in refuses(command, NAME, *more, "--json", tmp_path)
    if os.geteuid() != 0:
        tmp_path.chmod(0o500)
        assert "is not writable" in refuses(command, NAME, *more, "--json", tmp_path / "x.json")


# eval


def test_eval_measures_both_models(writes, weights, data):
    out, err, fields = writes(
        "eval", NAME, *SMALL, "--checkpoint", weights, "--data", data, "--batch-size", 4
    )
    assert fields["samples"] == 6
    assert 0 <= fields["top1"] <= fields["top5"] == 100
    assert (fields["top1_err"], fields["top5_err"]) == (100 - fields["top1"], 0)
    assert {
        "dense_top1",
        "dense_top5",
        "agreement",
        "mac_ratio",
        "config",
        "precision",
        "device",
        "model",
    } <= set(fields)
    assert (fields["img_size"], fields["skipped"], fields["skipped_files"]) == ([64, 64], 0, [])
    assert 0 < fields["gmacs"] < fields["dense_gmacs"]
    assert fields["param_count"] > 5e6
    assert [line.split()[0] for line in out.splitlines()[1:3]] == ["dense", "reduced"]
    assert out.splitlines()[3] == f"6 pictures, fp32, cpu, torch {torch.__version__}"
    assert err.strip() == ""


def test_eval_that_keeps_everything_agrees_with_the_dense_model(writes, weights, data):
    *_, fields = writes(
        "eval", NAME, *SMALL, "--checkpoint", weights, "--data", data, "--keep-rate", "1.0"
    )
    assert (fields["agreement"], fields["mac_ratio"]) == (100, 1)
    assert fields["top1"] == fields["dense_top1"]


def test_eval_labels_by_the_class_map(writes, weights, data, tmp_path):
    # a model that takes everything for the first class
    state = load_file(weights)
    state["head.weight"], state["head.bias"] = torch.zeros(3, 192), torch.tensor([1.0, 0.0, 0.0])
    save_file(state, tmp_path / "first.safetensors")
    noise().save(data / "cat" / "2.png")
    arguments = (
        "eval",
        NAME,
        *SMALL,
        "--checkpoint",
        tmp_path / "first.safetensors",
        "--data",
        data,
    )
    assert writes(*arguments)[2]["top1"] == 100 * 2 / 7
    (tmp_path / "map.txt").write_text("cat\ndog\nbird\n")
    assert writes(*arguments, "--class-map", tmp_path / "map.txt")[2]["top1"] == 100 * 3 / 7


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_eval_in_low_precision(writes, weights, data, precision):
    *_, fields = writes(
        "eval",
        NAME,
        *SMALL,
        "--checkpoint",
        weights,
        "--data",
        data,
        "--precision",
        precision,
        "--threads",
        1,
    )
    assert (fields["precision"], fields["samples"]) == (precision, 6)


def test_eval_counts_and_names_what_it_leaves_out(refuses, writes, weights, data):
    arguments = ("eval", NAME, *SMALL, "--checkpoint", weights, "--data", data)
    (data / "cat" / "2.jpg").write_text("hello")
    bomb(data / "dog" / "2.png")
    said = refuses(*arguments)
    assert (
        f"2 of 8 files cannot be read as pictures, the first is {data / 'cat' / '2.jpg'}; remove them, or skip them"
        in said
    )
    cut(data / "bird" / "1.jpg")
    out, err, fields = writes(*arguments, "--skip-unreadable")
    assert (fields["skipped"], fields["samples"]) == (3, 5)
    assert fields["skipped_files"] == [
        str(data / name) for name in ("bird/1.jpg", "cat/2.jpg", "dog/2.png")
    ]
    assert "5 pictures, 3 unreadable left out, fp32, cpu" in out
    assert err.strip() == ""


@pytest.mark.parametrize("workers", [0, 1])
def test_eval_names_what_fails_when_it_is_decoded(refuses, weights, data, tmp_path, workers):
    cut(data / "dog" / "1.jpg")
    arguments = (
        "--checkpoint",
        weights,
        "--data",
        data,
        "--workers",
        workers,
        "--json",
        tmp_path / "x.json",
    )
    said = refuses("eval", NAME, *SMALL, *arguments)
    assert said.startswith(
        f"batvit eval: {data / 'dog' / '1.jpg'}: cannot be read as a picture (image file is truncated"
    )
    assert said.endswith("; remove it, or skip such files (--skip-unreadable)\n")
    assert not (tmp_path / "x.json").exists()


def test_eval_refuses_folders_and_class_maps_that_do_not_fit(refuses, weights, data, tmp_path):
    arguments = (
        "eval",
        NAME,
        *SMALL,
        "--checkpoint",
        weights,
        "--json",
        tmp_path / "x.json",
        "--data",
    )
    assert f"{tmp_path / 'nowhere'}: no such folder" in refuses(*arguments, tmp_path / "nowhere")
    # before weights are downloaded, which cannot be had here
    assert f"{tmp_path / 'nowhere'}: no such folder" in refuses(
        "eval", NAME, "--data", tmp_path / "nowhere"
    )
    (tmp_path / "empty").mkdir()
    assert "holds no pictures; expected one folder a class" in refuses(
        *arguments, tmp_path / "empty"
    )
    names = tmp_path / "map.txt"
    for content, said in (
        (
            b"bird\ncat\ncow\n",
            "1 of its 3 folders are not named in the class map, the first is 'dog'",
        ),
        (
            b"bird\ncat\ndog\ncow\n",
            "names 4 classes, the model has 3 classes; give the class map of this model",
        ),
        (b"bird\ncat\ndog\ncat\n", "names 'cat' twice"),
        (b"\x80\x04\x95", "not a text file"),
    ):
        names.write_bytes(content)
        assert f"{names}: " in (line := refuses(*arguments, data, "--class-map", names))
        assert said in line
    (tmp_path / "map.pkl").write_bytes(pickle.dumps(Payload(tmp_path / "made")))
    assert "a class map is a .txt file" in refuses(
        *arguments, data, "--class-map", tmp_path / "map.pkl"
    )
    assert not (tmp_path / "made").exists()
    noise().save(data / "x.jpg")
    assert "x.jpg lies beside the class folders; put each picture into" in refuses(*arguments, data)
    (data / "x.jpg").rename(data / "cat" / "x.jpg")
    (data / "cow").mkdir()
    noise().save(data / "cow" / "x.jpg")
    assert "has 4 folders, the model has 3 classes; give --class-map FILE" in refuses(
        *arguments, data
    )
    assert not (tmp_path / "x.json").exists()


def test_eval_refuses_checkpoints_that_do_not_fit(refuses, weights, data, tmp_path):
    arguments = ("eval", NAME, "--data", data, "--checkpoint")
    short = tmp_path / "short.safetensors"
    short.write_bytes(weights.read_bytes()[:100_000])
    assert f"{short}: not a readable checkpoint (" in refuses(*arguments, short)
    torch.save({"a": torch.ones(9)}, tmp_path / "short.pth")
    cut(tmp_path / "short.pth")
    assert "short.pth: not a readable checkpoint (" in refuses(*arguments, tmp_path / "short.pth")
    torch.save({"a": Payload(tmp_path / "made")}, tmp_path / "code.pth")
    said = refuses(*arguments, tmp_path / "code.pth")
    assert (
        "code.pth: refused, because it holds more than tensors (posix.mkdir) and could run code; save the state"
        in said
    )
    assert not (tmp_path / "made").exists()
    assert (
        "head.weight has shape (3, 192), the model needs (1000, 192); give the model, number"
        in refuses(*arguments, weights)
    )
    save_file({"a": torch.ones(1)}, tmp_path / "other.safetensors")
    said = refuses(*arguments, tmp_path / "other.safetensors")
    assert (
        "missing, the first is 'cls_token'; 1 unexpected, the first is 'a'; give the model that the weights are of"
        in said
    )


@pytest.mark.parametrize(
    ("name", "own"), [("deit_tiny_patch16_224", 1000), ("vit_base_patch16_224.augreg_in21k", 21843)]
)
def test_the_classes_that_the_weights_have_may_be_named(name, own):
    load_models.check_inputs(
        argparse.Namespace(data=None, model=name, checkpoint=None, num_classes=own)
    )
    for other in ("deit_tiny_patch16_224.unknown", "unknown", name):
        with pytest.raises(ValueError, match="random weights"):
            load_models.check_inputs(
                argparse.Namespace(data=None, model=other, checkpoint=None, num_classes=own - 1)
            )


@pytest.mark.parametrize(
    ("command", "more"),
    [
        ("eval", ()),
        ("compare", ("-o", "OUT")),
        ("tune", ("--target-macs", "0.5", "-o", "OUT")),
        ("export", ("-o", "OUT.pt2")),
    ],
)
def test_a_model_without_a_trained_head_is_refused(refuses, weights, data, tmp_path, command, more):
    given = ("--data", data, *(part.replace("OUT", str(tmp_path / "out")) for part in more))
    said = refuses(command, NAME, *given, "--num-classes", 3)
    assert (
        "--num-classes alone would make a head of random weights; give the --checkpoint that has one"
        in said
    )
    state = {key: value for key, value in load_file(weights).items() if not key.startswith("head.")}
    save_file(state, tmp_path / "features.safetensors")
    if command == "export":
        return
    said = refuses(
        command, NAME, *given, "--num-classes", 0, "--checkpoint", tmp_path / "features.safetensors"
    )
    assert (
        f"{NAME} has no classes, only features; give --num-classes N and a --checkpoint with a head"
        in said
    )


def test_eval_without_weights_and_network_says_to_give_a_file(refuses, data):
    said = refuses("eval", NAME, "--data", data)
    assert said.startswith(f"batvit eval: no pretrained weights of {NAME} could be had (")
    assert said.endswith("); give --checkpoint FILE\n")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--device", "cuda:99"], "--device cuda:99 cannot be used here ("),
        (["--device", "meta"], "--device meta cannot be used here ("),
        (["--device", "abacus"], "--device abacus cannot be used here ("),
        (["--device", "mps:7"], "give another, such as cpu"),
        (["--precision", "int8"], "--precision: invalid choice: 'int8'"),
        (["--threads", "0"], "--threads: expected an integer of 1 or more, got '0'"),
        (["--batch-size", "0"], "--batch-size: expected an integer of 1 or more, got '0'"),
        (["--batch-size", "many"], "--batch-size: expected an integer of 1 or more, got 'many'"),
        (["--workers", "-1"], "--workers: expected an integer of 0 or more, got '-1'"),
    ],
)
def test_eval_refuses_what_cannot_run(refuses, tmp_path, arguments, said):
    assert said in (line := refuses("eval", NAME, "--data", tmp_path, *arguments))
    assert len(line) < 300


# bench


def test_bench_compares_every_batch_size(writes):
    arguments = ("--batch-size", 1, 2, "--rounds", 2, "--warmup", 1, "--threads", 1)
    out, err, fields = writes("bench", NAME, *SMALL, *arguments)
    assert [result["batch_size"] for result in fields["results"]] == [1, 2]
    for result in fields["results"]:
        assert result["mac_ratio"] == pytest.approx(result["dense_gmacs"] / result["gmacs"])
        assert 0 < result["speedup_low"] <= result["speedup"] <= result["speedup_high"]
        assert result["realised_share"] == pytest.approx(result["speedup"] / result["mac_ratio"])
        assert result["samples_per_sec"] > 0
        assert 0 < result["reduction_share"] < 1
        assert (result["rounds"], result["compiled"]) == (2, False)
    peaks = [result["peak_memory_mb"] for result in fields["results"]]
    assert 0 < peaks[0] < peaks[1]
    assert (fields["img_size"], fields["precision"], fields["device"], fields["threads"]) == (
        [64, 64],
        "fp32",
        "cpu",
        1,
    )
    assert fields["config"] == json.loads(json.dumps(batvit.BATConfig.preset().to_dict()))
    assert "1 CPU threads" in out
    # nothing is cut off in a terminal of 80 columns
    assert "…" not in out
    assert err.strip() == ""


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--batch-size", "0"], "--batch-size: expected an integer of 1 or more, got '0'"),
        (["--batch-size", "1", "-2"], "--batch-size: expected an integer of 1 or more, got '-2'"),
        (["--rounds", "0"], "--rounds: expected an integer of 1 or more, got '0'"),
        (["--warmup", "-1"], "--warmup: expected an integer of 0 or more, got '-1'"),
        (["--threads", "two"], "--threads: expected an integer of 1 or more, got 'two'"),
        (
            ["--compile", "--warmup", "0", *SMALL],
            "warmup must be 1 or more, as the first run compiles, got 0",
        ),
    ],
)
def test_bench_refuses(refuses, arguments, said):
    assert said in refuses("bench", NAME, *arguments)


def test_bench_without_a_compiler_says_so(tmp_path):
    # in an interpreter of its own: torch remembers which compiler it found
    command = [
        sys.executable,
        "-m",
        "batvit",
        "bench",
        "test_vit",
        "--img-size",
        "64",
        "--compile",
        "--batch-size",
        "1",
    ]
    nowhere = {"CXX": "/nowhere/g++", "TORCHINDUCTOR_CACHE_DIR": str(tmp_path)}
    done = subprocess.run(
        [*command, "--rounds", "1", "--warmup", "1"],
        env=os.environ | nowhere,
        capture_output=True,
        text=True,
    )
    said = done.stderr.strip().splitlines()[-1]
    assert done.returncode == 2
    assert "--compile does not work here (" in said
    assert "No working C++ compiler" in said
    assert said.endswith("; leave it out")


@pytest.mark.parametrize("options", [(), ("--compile",)])
def test_a_bug_in_bench_is_not_blamed_on_the_compiler(monkeypatch, options):
    def broken(*arguments, **settings):
        raise RuntimeError("a bug")

    monkeypatch.setattr("batvit.cli.bench.benchmark", broken)
    with pytest.raises(RuntimeError, match="a bug"):
        main(["bench", NAME, *SMALL, *options])


@pytest.mark.parametrize(
    ("error", "blamed"),
    [
        (RuntimeError("torch.compile is not supported on Python 3.20+"), True),
        (InductorError(RuntimeError("no g++"), None), True),
        (Unsupported("a graph break"), True),
        (TorchRuntimeError("the model's own"), False),
    ],
    ids=["nowhere", "backend", "graph", "model"],
)
def test_errors_of_the_compiler_are_told_from_those_of_the_model(error, blamed):
    assert _is_of_the_compiler(error) == blamed


# draw


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_draw_writes_pictures_that_open(writes, weights, tmp_path, precision):
    noise().save(tmp_path / "x.jpg")
    # rich would take what is in brackets for a colour
    strip, curves = tmp_path / "groups[red].png", tmp_path / "diversity.svg"
    arguments = (
        tmp_path / "x.jpg",
        "-o",
        strip,
        "--diversity",
        curves,
        "--checkpoint",
        weights,
        "--precision",
        precision,
    )
    out, err, fields = writes("draw", NAME, *SMALL, *arguments)
    with Image.open(strip) as picture:
        picture.load()
        assert picture.width > 4 * 336
    assert b"<svg" in curves.read_bytes()
    assert out.endswith(f"wrote {strip}\nwrote {curves}\n")
    assert (fields["grid"], fields["picture"], fields["model"]) == (
        [4, 4],
        str(tmp_path / "x.jpg"),
        NAME,
    )
    assert [site["block"] for site in fields["sites"]] == [3, 6, 9]
    for site in fields["sites"]:
        assert sorted(set(site["groups"])) == list(range(site["tokens_out"]))
    assert {name: len(values) for name, values in fields["diversity"].items()} == {
        "dense": 12,
        "reduced": 12,
    }
    assert err == ""


def test_draw_refuses_before_any_work(refuses, tmp_path, monkeypatch):
    monkeypatch.setattr(timm, "create_model", lambda *a, **k: pytest.fail("a model was created"))
    monkeypatch.chdir(tmp_path)
    noise().save("x.png")
    (tmp_path / "text.jpg").write_text("hello")
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    for arguments, said in (
        (
            ["x.png", "-o", "groups.xyz"],
            "--output groups.xyz: the suffix must be one of .png, .jpg, .jpeg, .webp",
        ),
        (["x.png", "-o", "groups"], "--output groups: the suffix must be one of .png"),
        (
            ["x.png", "--diversity", "d.jpg"],
            "--diversity d.jpg: the suffix must be one of .png, .svg, .pdf",
        ),
        (
            ["x.png", "-o", "nowhere/g.png"],
            "cannot write nowhere/g.png: the folder nowhere does not exist; create it first",
        ),
        (
            ["x.png", "-o", "a.png", "--diversity", "./a.png"],
            "a.png would overwrite what is read or written beside it; name",
        ),
        (["x.png", "-o", "x.png"], "x.png would overwrite what is read"),
        (["none.png"], "none.png: cannot be read as a picture (No such file or directory)"),
        (["text.jpg"], "text.jpg: cannot be read as a picture (it is none of BMP"),
        (["."], ".: cannot be read as a picture (Is a directory)"),
    ):
        assert said in refuses("draw", NAME, *arguments)
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_draw_needs_weights(refuses, tmp_path):
    noise().save(tmp_path / "x.jpg")
    assert "give --checkpoint FILE" in refuses(
        "draw", NAME, tmp_path / "x.jpg", "-o", tmp_path / "groups.png"
    )
    assert not (tmp_path / "groups.png").exists()
