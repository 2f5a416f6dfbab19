"""Every recipe can be followed."""

import argparse

import pytest
import timm
import torch

import batvit
import batvit.models
from batvit.cli import train
from batvit.training import TrainConfig
from batvit.training.recipes import RECIPES


def parse(arguments):
    parser = argparse.ArgumentParser()
    train.add_arguments(parser)
    return parser.parse_args(arguments)


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_opens_with_a_command_that_runs_it(name):
    words = RECIPES[name].about.splitlines()[0].split()
    assert words[:3] == ["accelerate", "launch", "--num_processes"]
    args = parse(words[words.index("train") + 1 :])
    assert args.recipe == name
    assert args.data
    assert args.output


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_fits_its_model(name):
    recipe = RECIPES[name]
    TrainConfig(**recipe.train)
    with torch.device("meta"):
        model = timm.create_model(recipe.model)
    batvit.patch(model, **recipe.reduction)


def test_the_fine_tuning_is_the_authors():
    config = TrainConfig(**RECIPES["deit_small"].train)
    found = (
        config.epochs,
        config.batch_size,
        config.lr,
        config.min_lr,
        config.warmup_epochs,
        config.distill,
    )
    assert found == (30, 1024, 4e-5, 2e-6, 0, "none")
    scratch = TrainConfig(**RECIPES["deit_small_scratch"].train)
    found = (scratch.epochs, scratch.batch_size, scratch.lr, scratch.min_lr, scratch.warmup_epochs)
    assert found == (300, 2048, 2e-3, 1e-5, 5)
    assert not RECIPES["deit_small_scratch"].pretrained


def test_options_override_a_recipe_and_the_rest_stays():
    args = parse(
        [
            "--recipe",
            "deit_small",
            "--data",
            "D",
            "-o",
            "O",
            "--epochs",
            "3",
            "--keep-rate",
            "0.5",
            "--model",
            "test_vit",
        ]
    )
    train._resolve(args)
    assert (args.model, args.epochs, args.batch_size, args.keep_rate, args.mode) == (
        "test_vit",
        3,
        1024,
        0.5,
        "paper",
    )
    args = parse(["--recipe", "deit_small", "--data", "D", "-o", "O", "--dense"])
    train._resolve(args)
    assert (args.mode, args.keep_rate) == (None, None)
    args = parse(["--recipe", "deit_small_scratch", "--data", "D", "-o", "O", "--dense"])
    train._resolve(args)
    assert (args.epochs, args.keep_warmup_start, args.keep_warmup_epochs) == (300, None, None)
