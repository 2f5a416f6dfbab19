"""Single values: what is refused, and what the message says."""

import sys
import tomllib
from pathlib import Path

import pytest

from batvit.checks import (
    EXTRAS,
    MissingPackageError,
    check_choice,
    check_integers,
    check_interval,
    check_number,
    check_share_or_count,
    check_switch,
    installed,
)


@pytest.mark.parametrize(("value", "kind"), [(1, int), (-3, int), (1, float), (0.5, float)])
def test_a_number_will_do(value, kind):
    check_number("n", value, kind=kind)


@pytest.mark.unchecked
@pytest.mark.parametrize(
    ("value", "kind", "message"),
    [
        (1.0, int, r"n must be an integer, got 1.0 \(float\); the default is 3$"),
        (True, int, r"n must be an integer, got True \(bool\)"),
        ("1", float, r"n must be a number, got '1' \(str\)"),
        (None, float, r"n must be a number, got None \(NoneType\)"),
    ],
)
def test_what_is_no_such_number_is_refused(value, kind, message):
    with pytest.raises(TypeError, match=message):
        check_number("n", value, kind=kind, remedy="the default is 3")


@pytest.mark.parametrize(
    ("value", "interval"),
    [(0.1, "(0, 1]"), (1, "(0, 1]"), (0, "[0, 1)"), (1e300, "[1, inf)"), (-5, "(-inf, 0]")],
)
def test_an_end_belongs_to_an_interval_by_its_bracket(value, interval):
    check_interval("n", value, interval)


@pytest.mark.parametrize(
    ("value", "interval"),
    [
        (0, "(0, 1]"),
        (1.5, "(0, 1]"),
        (1, "[0, 1)"),
        (float("inf"), "[1, inf)"),
        (float("nan"), "[0, 1]"),
        (float("nan"), "[0, inf)"),
    ],
)
def test_what_lies_outside_is_refused(value, interval):
    with pytest.raises(ValueError, match=r"n must lie in .*, got .*; lower it$"):
        check_interval("n", value, interval, remedy="lower it")


def test_the_message_names_value_and_interval():
    with pytest.raises(ValueError, match=r"^n must lie in \(0, 1\], got 2$"):
        check_interval("n", 2, "(0, 1]")


@pytest.mark.parametrize(
    ("values", "error", "message"),
    [
        ([1], TypeError, r"n must be a tuple of integers, one a site, got \[1\]"),
        ((), TypeError, r"n must be a tuple of integers, one a site, got \(\)"),
        ((1, 2.0), TypeError, r"n must hold integers, got 2.0 \(float\)"),
        ((True,), TypeError, "n must hold integers, got True"),
        ((3, 0), ValueError, "n must be 1 or more, got 0; count from 1"),
    ],
)
def test_what_is_no_tuple_of_integers_is_refused(values, error, message):
    check_integers("n", (1, 2), least=1, remedy="count from 1")
    with pytest.raises(error, match=message):
        check_integers("n", values, least=1, remedy="count from 1")


@pytest.mark.parametrize("value", [0, 7, 0.0, 0.5, 1000])
def test_a_share_or_a_count_will_do(value):
    check_share_or_count("n", value, largest_share=0.5)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (-1, r"n must be a count from 0 up \(int\) or a share in 0.0 .. 0.5 \(float\), got -1"),
        (float("inf"), "n must be a count from 0 up .* got inf"),
        (0.6, "n as a share must lie in 0.0 .. 0.5, got 0.6; a count is an int"),
    ],
)
def test_what_is_neither_share_nor_count_is_refused(value, message):
    with pytest.raises(ValueError, match=message):
        check_share_or_count("n", value, largest_share=0.5)


def test_a_choice_is_one_of_those_allowed():
    check_choice("n", "a", ("a", "b"))
    with pytest.raises(ValueError, match="n must be one of a, b, got 'c'; the default is a"):
        check_choice("n", "c", ("a", "b"), remedy="the default is a")


def test_a_switch_is_true_or_false():
    check_switch("n", True)
    with pytest.raises(TypeError, match="n must be True or False, got 1"):
        check_switch("n", 1)


@pytest.mark.parametrize("package", EXTRAS)
def test_a_package_that_is_not_installed_is_named_with_what_installs_it(package, monkeypatch):
    # importing what stands there as None raises ImportError
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(MissingPackageError) as caught:
        installed(package)
    assert f"pip install {package}, or batvit with its extra [{EXTRAS[package]}]" in str(
        caught.value
    )


def test_what_no_extra_brings_is_pythons_own_error():
    with pytest.raises(ModuleNotFoundError, match="No module named 'batvit_nonsense'"):
        installed("batvit_nonsense")


def test_the_extras_are_those_of_the_project():
    project = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text())["project"]
    for package, extra in EXTRAS.items():
        names = [line.partition(">")[0] for line in project["optional-dependencies"][extra]]
        assert package in names, package
    core = [line.partition(">")[0] for line in project["dependencies"]]
    assert {"torch", "torchvision", "timm"} < set(core)
    assert len(core) <= 9
    assert not set(core) & set(EXTRAS)
