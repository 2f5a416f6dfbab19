"""Options that several commands share: a configuration from them, and outputs that are refused."""

import argparse
import os

import pytest
import timm
from command_runs import NAME

import batvit
from batvit.cli import options
from batvit.plans import PLANS


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


@pytest.mark.parametrize("mode", ["training-free", "training_free"])
def test_a_preset_may_be_written_with_either_sign(mode):
    assert parsed("--mode", mode) == batvit.BATConfig.preset("training-free")


def test_the_help_names_every_plan():
    assert tuple(PLANS) == options.METHODS


def test_a_plan_that_is_not_known_is_refused():
    with pytest.raises(ValueError, match=r"method must be one of bat, .*, got 'best'"):
        parsed("--method", "best")


@pytest.mark.parametrize("command", ["info", "eval", "bench", "draw"])
def test_an_output_that_cannot_be_written_is_refused_before_any_work(
    refuses, tmp_path, monkeypatch, command
):
    monkeypatch.setattr(timm, "create_model", lambda *a, **k: pytest.fail("a model was created"))
    more = {"eval": ("--data", tmp_path), "draw": (tmp_path / "x.jpg",)}.get(command, ())
    folder = tmp_path / "nowhere"
    said = refuses(command, NAME, *more, "--json", folder / "x.json")
    assert f"cannot write {folder / 'x.json'}: the folder {folder} does not exist; create" in said
    assert "it is a folder; name a file in it" in refuses(command, NAME, *more, "--json", tmp_path)
    if os.geteuid() != 0:
        tmp_path.chmod(0o500)
        assert "is not writable" in refuses(command, NAME, *more, "--json", tmp_path / "x.json")


@pytest.mark.parametrize("size", ["16 16000000", "100000", "4097 4096"])
def test_an_image_that_would_take_all_memory_is_refused(refuses, size):
    said = refuses("info", NAME, "--img-size", *size.split())
    assert "has more than 16,777,216 pixels; give a smaller one" in said


def test_an_output_that_is_a_link_in_a_circle_is_refused(refuses, tmp_path):
    (tmp_path / "circle.json").symlink_to(tmp_path / "circle.json")
    said = refuses("info", NAME, "--json", tmp_path / "circle.json")
    assert "it is a link that leads in a circle; name another" in said


@pytest.mark.parametrize("option", ["--config", "--checkpoint"])
def test_an_input_that_is_a_link_in_a_circle_is_refused(refuses, tmp_path, option):
    (tmp_path / "circle").symlink_to(tmp_path / "circle")
    assert "circle" in refuses("info", NAME, option, tmp_path / "circle", "--json", tmp_path / "x")
