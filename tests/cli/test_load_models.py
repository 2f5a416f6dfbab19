"""From options to models and pictures."""

import argparse

import pytest
from command_runs import NAME
from safetensors.torch import load_file, save_file

from batvit.cli import load_models


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
        "--num-classes alone would make a head of random weights; "
        "give the --checkpoint that has one" in said
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
