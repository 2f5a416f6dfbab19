"""Every recipe can be followed."""

import argparse

import pytest
import timm
import torch

import batvit
import batvit.models
from batvit.cli import train
from batvit.training import TrainConfig
from batvit.training.recipes import RECIPES, Recipe, resolve


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
    words = "--recipe deit_small --data D -o O --epochs 3 --keep-rate 0.5 --model test_vit"
    choices = train.choices_of(parse(words.split()))
    assert choices.model == "test_vit"
    assert (choices.train["epochs"], choices.train["batch_size"]) == (3, 1024)
    assert choices.reduction == {"mode": "paper", "keep_rate": 0.5}
    words = "--recipe deit_small --data D -o O --dense"
    assert train.choices_of(parse(words.split())).reduction is None
    words = "--recipe deit_small_scratch --data D -o O --dense"
    choices = train.choices_of(parse(words.split()))
    assert choices.train["epochs"] == 300
    assert not any(name.startswith("keep_warmup") for name in choices.train)


# what becomes of a recipe, and of what is given

OWN = Recipe(
    about="none",
    model="test_vit",
    train={"epochs": 7, "keep_warmup_epochs": 2},
    reduction={
        "mode": "training-free",
        "tokens": (40, 20),
        "blocks": (1, 2),
        "centres": 0.4,
        "size_aware": False,
    },
    pretrained=False,
)


@pytest.fixture
def own(monkeypatch):
    """A recipe that sets more than a mode and a keep rate."""
    monkeypatch.setitem(RECIPES, "own", OWN)
    return "own"


def test_a_recipe_alone_is_what_it_says(own):
    choices = resolve(own)
    assert (choices.model, choices.pretrained) == (OWN.model, False)
    assert choices.train == OWN.train
    assert choices.reduction == OWN.reduction


def test_every_field_may_be_given_otherwise(own):
    choices = resolve(
        own,
        model="deit",
        train={"epochs": 9, "lr": 0.1},
        reduction={"mode": "paper", "centres": 5, "pairs": 2},
    )
    assert choices.model == "deit"
    assert choices.train == {"epochs": 9, "keep_warmup_epochs": 2, "lr": 0.1}
    assert choices.reduction == OWN.reduction | {"mode": "paper", "centres": 5, "pairs": 2}
    # it is data, and stays as it is
    assert resolve(own).reduction == OWN.reduction


def test_keep_rate_and_tokens_take_one_anothers_place(own):
    reduction = resolve(own, reduction={"keep_rate": (0.8, 0.6)}).reduction
    assert "tokens" not in reduction
    assert batvit.BATConfig.preset(**reduction).keep_rate == (0.8, 0.6)
    reduction = resolve("deit_small", reduction={"tokens": (90, 60, 30)}).reduction
    assert reduction == {"mode": "paper", "tokens": (90, 60, 30)}


def test_a_file_of_a_configuration_takes_the_place_of_the_whole_reduction(own):
    given = {"config": "mine.json", "pairs": 3}
    assert resolve(own, reduction=given).reduction == given


def test_the_dense_model_has_no_reduction_and_no_warm_up_of_it(own):
    choices = resolve(own, dense=True)
    assert choices.reduction is None
    assert choices.train == {"epochs": 7}
    # unless it is asked for
    choices = resolve(own, dense=True, train={"keep_warmup_epochs": 1})
    assert choices.train == {"epochs": 7, "keep_warmup_epochs": 1}


def test_without_a_recipe_the_given_values_are_all():
    choices = resolve(None, model="deit", train={"lr": 0.1}, reduction={"pairs": 2})
    assert (choices.model, choices.train, choices.reduction) == ("deit", {"lr": 0.1}, {"pairs": 2})
    assert choices.pretrained


@pytest.mark.parametrize(
    ("recipe", "given", "message"),
    [
        (None, {}, "give model=MODEL, or recipe=NAME, which brings one"),
        ("deit", {}, "recipe must be one of deit_tiny, deit_small, .* got 'deit'"),
        (
            "deit_tiny",
            {"dense": True, "reduction": {"keep_rate": 0.5}},
            "dense=True trains without reduction, but keep_rate=0.5 is given; leave one out",
        ),
    ],
)
def test_what_cannot_be_resolved_is_refused(recipe, given, message):
    with pytest.raises(ValueError, match=message):
        resolve(recipe, **given)
