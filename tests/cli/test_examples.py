"""The examples in the help: each is a command that can be typed, and none is forgotten."""

import shlex

import pytest

from batvit.cli import COMMANDS, build_parser
from batvit.cli.examples import EXAMPLES


def test_every_command_has_examples():
    assert tuple(EXAMPLES) == COMMANDS
    assert all(EXAMPLES.values())


@pytest.mark.parametrize("command", COMMANDS)
def test_examples_can_be_typed(command):
    parser = build_parser([command])
    for line in EXAMPLES[command]:
        program, *words = shlex.split(line)
        assert program == "batvit"
        assert parser.parse_args(words).command == command
