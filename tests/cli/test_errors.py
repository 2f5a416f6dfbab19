"""What is said of an error: the library's arguments as options, and what counts as bad input."""

import argparse

import pytest

from batvit.cli.errors import is_input, one_line, with_options


@pytest.fixture
def parser():
    parser = argparse.ArgumentParser()
    parser.add_argument("model")
    parser.add_argument("-o", "--output")
    parser.add_argument("--class-map")
    parser.add_argument("--dense", dest="dense_file")
    parser.add_argument("--blocks")
    parser.add_argument("--img-size", nargs="+")
    parser.add_argument("--resume", action="store_true")
    parser.add_argument("--size-aware", action=argparse.BooleanOptionalAction)
    return parser


@pytest.mark.parametrize(
    ("said", "typed"),
    [
        ("give class_map=FILE", "give --class-map FILE"),
        ("output=runs/a.png is there", "--output runs/a.png is there"),
        ("dense_file=a.onnx is a reduced model", "--dense a.onnx is a reduced model"),
        ("go on by resume=True, or name another", "go on by --resume, or name another"),
        ("remove it, or skip it (resume=True)", "remove it, or skip it (--resume)"),
        ("size_aware=True", "--size-aware"),
        ("size_aware=False counts none.", "--no-size-aware counts none."),
        ("give class_map=map.txt.", "give --class-map map.txt."),
        ("give blocks=(3, 6, 9); or", "give --blocks 3,6,9; or"),
        ("give blocks=(…)", "give --blocks …"),
        ("give img_size=(224, 224)", "give --img-size 224 224"),
        ("class_map=a, output=b", "--class-map a, --output b"),
        ("class_map must be a file, got 3", "--class-map must be a file, got 3"),
        ("blocks as a share must be small", "--blocks as a share must be small"),
    ],
)
def test_an_argument_of_the_command_is_written_as_its_option(parser, said, typed):
    assert with_options(said, parser) == typed


@pytest.mark.parametrize(
    "said",
    [
        "give checkpoint=FILE",
        "model=vit is given by its place",
        "leave out resume=False",
        "got blocks=None",
        "resume=later is no switch",
        "/runs/output=3/log.jsonl: no such file",
        "got 'output=3'",
        "my_output=3",
        "a == b",
        "model must be one of these",
        "a.json: blocks must hold integers",
        "output = 3",
    ],
)
def test_all_else_is_left_as_it_is(parser, said):
    assert with_options(said, parser) == said


def test_an_error_becomes_one_line(parser):
    assert one_line(ValueError("first\n  second: class_map=x\n"), parser) == (
        "first second: --class-map x"
    )


def test_of_a_loaders_error_the_last_line_is_said(parser):
    text = "Caught in worker\nTraceback (most recent call last):\n  File\nValueError: a.png: bad"
    assert one_line(ValueError(text), parser) == "a.png: bad"


@pytest.mark.parametrize(
    ("error", "of_input"),
    [
        (ValueError("bad"), True),
        (TypeError("bad"), True),
        (FileNotFoundError("gone"), True),
        (MemoryError(), True),
        (RuntimeError("a bug"), False),
        (AssertionError(), False),
    ],
)
def test_errors_of_the_input_are_told_from_bugs(error, of_input):
    assert is_input(error) == of_input
