"""What the help says of each field of a configuration."""

from dataclasses import dataclass, fields

import pytest

from batvit.config import BATConfig
from batvit.config.field_help import field_help, preset_values
from batvit.config.presets import PRESETS
from batvit.training.config import TrainConfig


@dataclass
class Example:
    """Not the text of a field."""

    # a comment is not shown
    one: int = 1
    """on one line, 50 % of it"""
    none: int = 2
    two: int = 3
    """on two lines,
    which are joined"""

    def method(self):
        """Not a field either."""


def test_the_text_under_a_field_is_its_help():
    assert field_help(Example) == {
        "one": "on one line, 50 %% of it",
        "two": "on two lines, which are joined",
    }


@pytest.mark.parametrize("kind", [BATConfig, TrainConfig])
def test_every_field_has_a_text(kind):
    assert list(field_help(kind)) == [field.name for field in fields(kind)]


def test_a_value_is_shown_once_where_all_presets_have_it():
    assert preset_values("similarity") == " (tokens)"
    assert preset_values("blocks") == ""


def test_every_preset_is_shown_where_they_differ():
    listed = ", ".join(f"{name}: {BATConfig.preset(name).pairs}" for name in PRESETS)
    assert preset_values("pairs") == f" ({listed})"
