"""The numbers that options take: what is read, and what is refused with its limit."""

import argparse
import re

import pytest

from batvit.cli import numbers


@pytest.mark.parametrize(("text", "value"), [("0", 0), (" +7 ", 7), ("٣", 3), ("9", 9)])
def test_an_integer_within_its_limits_is_read(text, value):
    assert numbers.at_least(0, 9)(text) == value


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("1", "an integer of 2 or more, got '1'"),
        ("-3", "an integer of 2 or more, got '-3'"),
        ("2.5", "an integer of 2 or more, got '2.5'"),
        ("10", "an integer of 9 or less, got '10'"),
        ("1" * 5000, "an integer of 9 or less, got '111"),
        ("²", "an integer of 2 or more, got '²'"),
    ],
)
def test_an_integer_beyond_its_limits_is_refused(text, said):
    with pytest.raises(argparse.ArgumentTypeError, match=f"expected {said}"):
        numbers.at_least(2, 9)(text)


@pytest.mark.parametrize(("text", "value"), [("3", (3,)), ("3, 6,9", (3, 6, 9))])
def test_numbers_of_sites_are_several_even_if_there_is_one(text, value):
    assert numbers.several(text) == value


@pytest.mark.parametrize(
    ("text", "value"), [("3", 3), ("0.5", 0.5), ("3,6", (3, 6)), ("0.5, 1", (0.5, 1))]
)
def test_counts_and_shares_are_told_apart(text, value):
    found = numbers.numbers(text)
    assert found == value
    assert type(found) is type(value)


@pytest.mark.parametrize("text", ["", "3,", "x", "²", "1" * 5000])
def test_what_is_no_number_is_refused(text):
    with pytest.raises(argparse.ArgumentTypeError, match="expected a number, or several with"):
        numbers.numbers(text)


@pytest.mark.parametrize(
    ("text", "value"), [("0.8G", 0.8e9), ("620m", 620e6), ("0.5", 0.5), ("2e9", 2e9)]
)
def test_macs_are_a_number_or_a_share(text, value):
    assert numbers.macs(text) == pytest.approx(value)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "expected MACs such as 0.8G or 620M"),
        ("G", "expected MACs such as 0.8G or 620M"),
        ("much", "expected MACs such as 0.8G or 620M"),
        ("-1", "expected more than 0, got '-1'"),
        ("nan", "expected more than 0, got 'nan'"),
        ("inf", "no model has so many MACs, got 'inf'"),
        ("1e300G", "no model has so many MACs, got '1e300G'"),
        ("80", "80 MACs; did you mean 80G?"),
    ],
)
def test_what_is_no_number_of_macs_is_refused(text, said):
    with pytest.raises(argparse.ArgumentTypeError, match=re.escape(said)):
        numbers.macs(text)


@pytest.mark.parametrize(
    ("command", "option", "value"),
    [
        ("bench", "--threads", "100000"),
        ("demo", "--threads", "100000"),
        ("train", "--threads", "100000"),
        ("eval", "--workers", "100000"),
        ("info", "--num-classes", "999999999"),
        ("bench", "--batch-size", "9" * 30),
        ("bench", "--rounds", "1000000000000"),
        ("tune", "--seed", "4294967296"),
    ],
)
def test_every_limit_names_its_option(refuses, command, option, value):
    said = refuses(command, option, value)
    assert f"argument {option}: expected an integer of" in said
    assert f"or less, got '{value}'" in said


@pytest.mark.parametrize(
    ("option", "value"),
    [("--lr", "1e300"), ("--seed", "99999999999"), ("--workers", "100000"), ("--mixup", "1e300")],
)
def test_every_limit_of_training_names_its_option(refuses, tmp_path, option, value):
    model = ("--model", "test_vit", "--data", "digits")
    said = refuses("train", *model, "-o", tmp_path / "run", option, value)
    assert f"{option.removeprefix('--').replace('-', '_')} must lie in " in said


@pytest.mark.parametrize(
    "policy", ["rand-n999999999", "augmix-w5000", "rand-m9-n101", "rand-n00999"]
)
def test_a_policy_of_too_many_steps_is_refused(refuses, tmp_path, policy):
    model = ("--model", "test_vit", "--data", "digits")
    said = refuses("train", *model, "-o", tmp_path / "run", "--auto-augment", policy)
    assert f"no number may be above 100, got '{policy}'" in said
