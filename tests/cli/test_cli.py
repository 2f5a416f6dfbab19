"""The command line as a whole: help, the command that is asked for, and how one ends."""

import argparse
import importlib
import re
import runpy
import subprocess
import sys

import pytest
from command_runs import NAME, SMALL, ends

import batvit
from batvit.cli import COMMANDS, main
from batvit.config.config import USUAL_FIELDS
from batvit.config.field_help import field_help
from batvit.config.presets import DEFAULT_MODE, PRESETS

HEAVY = ("torch", "timm", "numpy", "matplotlib")


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


@pytest.mark.parametrize("command", ["info", "eval", "bench", "draw"])
def test_help_shows_what_most_set_apart_from_what_is_for_research(capsys, command):
    assert ends(command, "--help") == 0
    usual, research = re.split("\nreduction, for research:\n", capsys.readouterr().out)
    usual = usual.partition("\nreduction:\n")[2]
    for name in batvit.BATConfig().to_dict():
        group, other = (usual, research) if name in USUAL_FIELDS else (research, usual)
        option = rf"^  --{name.replace('_', '-')}[ ,\n]"
        assert re.search(option, group, re.MULTILINE)
        assert not re.search(option, other, re.MULTILINE)


def test_help_has_a_row_for_each_preset(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    assert ends("info", "--help") == 0
    lines = [line.strip() for line in capsys.readouterr().out.splitlines()]
    first = lines.index(f"preset ({DEFAULT_MODE}):")
    rows = lines[first + 1 : first + 1 + len(PRESETS)]
    assert [row.partition(":")[0] for row in rows] == list(PRESETS)
    # the next option follows: none of the rows was wrapped
    assert lines[first + 1 + len(PRESETS)].startswith("--")


def test_a_preset_may_be_written_as_in_python(writes):
    *_, found = writes("info", NAME, "--mode", "training_free")
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
    required = "the following arguments are required"
    assert refuses() == f"batvit: {required}: COMMAND; see batvit --help\n"
    assert "invalid choice: 'tain' (choose from 'demo', 'info'" in refuses("tain")
    assert "unrecognized arguments: --nonsense; see batvit --help" in refuses(
        "info", NAME, "--nonsense"
    )
    assert refuses("info") == f"batvit info: {required}: MODEL; see batvit info --help\n"


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


def loaded(code):
    """Which heavy libraries a fresh interpreter has loaded after some code."""
    code = f"{code}\nimport sys\nprint(*set({HEAVY}) & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    return set(done.stdout.split())


@pytest.mark.parametrize("command", COMMANDS)
def test_help_of_a_command_loads_no_heavy_library(command):
    assert loaded(f"from batvit.cli import build_parser\nbuild_parser([{command!r}])") == set()


def test_a_heavy_library_would_be_seen():
    assert loaded("import numpy") == {"numpy"}


def test_an_interrupt_is_one_line(capsys, monkeypatch):
    def interrupted(*arguments, **settings):
        raise KeyboardInterrupt

    monkeypatch.setattr("batvit.cli.info.run", interrupted)
    assert ends("info", NAME) == 130
    assert capsys.readouterr().err == "batvit info: interrupted; nothing was written\n"


def test_a_bug_keeps_its_traceback(monkeypatch):
    def broken(*arguments, **settings):
        raise RuntimeError("a bug")

    monkeypatch.setattr("batvit.cli.info.run", broken)
    with pytest.raises(RuntimeError, match="a bug"):
        main(["info", NAME])


@pytest.mark.parametrize("batch", [10**12, 10**17])
def test_too_little_memory_is_one_line_with_the_remedy(refuses, batch):
    said = refuses("bench", NAME, *SMALL, "--batch-size", batch)
    assert "not enough memory; lower --batch-size or --img-size (" in said


def test_an_argument_of_the_library_is_said_as_an_option(monkeypatch, refuses):
    def refused(args):
        raise ValueError("no weights; give checkpoint=FILE, or size_aware=False")

    monkeypatch.setattr("batvit.cli.info.run", refused)
    said = refuses("info", NAME)
    assert said == "batvit info: no weights; give --checkpoint FILE, or --no-size-aware\n"


def test_an_error_of_memory_may_say_nothing(monkeypatch, refuses):
    def broken(*arguments, **settings):
        raise MemoryError

    monkeypatch.setattr("batvit.cli.info.run", broken)
    assert "not enough memory; lower --batch-size or --img-size (MemoryError)" in refuses(
        "info", NAME
    )


@pytest.mark.parametrize(
    ("command", "usage"),
    [
        ("info", "MODEL [options]"),
        ("draw", "MODEL PICTURE [options]"),
        ("plot", "RUN … [options]"),
        ("train", "--data DIR --output DIR [options]"),
        (
            "tune",
            "MODEL --data DIR --output DIR (--target-speedup X | --target-macs N | --max-drop P) "
            "[options]",
        ),
    ],
)
def test_the_usage_is_what_must_be_given(capsys, command, usage):
    assert ends(command, "--help") == 0
    out = capsys.readouterr().out
    assert out.startswith(f"usage: batvit {command} {usage}\n")
    examples = out.partition("\nexamples:\n")[2].splitlines()
    assert examples
    assert all(line.startswith(f"  batvit {command}") for line in examples)


@pytest.mark.parametrize(
    ("command", "arguments", "inside", "kept"),
    [
        ("train", ("--data", "digits", "--output"), "checkpoints", "the last checkpoint"),
        ("compare", (NAME, "--data", "x", "--output"), "", "what was found"),
        ("tune", (NAME, "--data", "x", "--target-macs", "0.5", "--output"), "", "what was tried"),
    ],
)
def test_an_interrupt_says_what_is_kept(
    monkeypatch, capsys, tmp_path, command, arguments, inside, kept
):
    def interrupted(args):
        raise KeyboardInterrupt

    monkeypatch.setattr(f"batvit.cli.{command}.run", interrupted)
    assert main([command, *arguments, str(tmp_path)]) == 130
    assert capsys.readouterr().err == f"batvit {command}: interrupted; nothing was written\n"
    place = tmp_path / inside
    place.mkdir(exist_ok=True)
    (place / ".lock").touch()
    assert main([command, *arguments, str(tmp_path)]) == 130
    assert "nothing was written" in capsys.readouterr().err
    (place / "update-3").touch()
    assert main([command, *arguments, str(tmp_path)]) == 130
    said = f"batvit {command}: interrupted; {place} keeps {kept}; go on with --resume\n"
    assert capsys.readouterr().err == said
