"""What is said of an error: one line, in which a library's arguments are the command's options."""

import argparse
import re

from batvit.measure.memory import is_memory
from batvit.storage.files import first_line

# "name must …" at the beginning of a message
SUBJECT = re.compile(r"(?P<name>[a-z]\w*) (?=(as a share )?must )")
# name=VALUE that stands alone: not in a path, in quotes, or at the end of a longer name
ARGUMENT = re.compile(
    r"""(?<![\w./'"-])(?P<name>[a-z]\w*)=(?P<value>\([^()]*\)|[^\s,;()]*[^\s,;().:])"""
)


def is_input(error: Exception) -> bool:
    """Return whether the user can do something about it; else the traceback is what helps."""
    return isinstance(error, ValueError | TypeError | OSError) or is_memory(error)


def one_line(error: Exception, parser: argparse.ArgumentParser) -> str:
    """Return what a user reads of an error, given the parser of the command that met it."""
    if is_memory(error):
        return f"not enough memory; lower --batch-size or --img-size ({first_line(error)})"
    text = str(error).strip()
    # an error of a loader's process holds its traceback, and says what is wrong at the end
    if "Traceback (most recent call last)" in text:
        text = text.splitlines()[-1].partition(": ")[2]
    return with_options(" ".join(text.split()), parser)


def with_options(text: str, parser: argparse.ArgumentParser) -> str:
    """Return a text in which arguments of the library are written as options of a command.

    ``name=VALUE`` becomes ``--name VALUE``; of a switch, ``name=True`` becomes ``--name`` and
    ``name=False`` becomes ``--no-name``. A text that begins with ``name must`` begins with
    ``--name must``. What the command has no option for is left as it is.
    """
    options = {action.dest: action for action in parser._actions if action.option_strings}

    def as_option(match: re.Match[str]) -> str:
        action = options.get(match["name"])
        written = None if action is None else _written(action, match["value"])
        return match[0] if written is None else written

    subject = SUBJECT.match(text)
    if subject is not None and subject["name"] in options:
        text = f"{_typed(options[subject['name']])} {text[subject.end() :]}"
    return ARGUMENT.sub(as_option, text)


def _typed(action: argparse.Action) -> str:
    """Return the long name of an option."""
    return next(option for option in action.option_strings if option.startswith("--"))


def _written(action: argparse.Action, value: str) -> str | None:
    """Return an option as it is typed; None if it cannot have that value."""
    name = _typed(action)
    is_switch = action.nargs == 0
    if is_switch:
        negative = f"--no-{name.removeprefix('--')}"
        if value == "True":
            return name
        if value == "False" and negative in action.option_strings:
            return negative
        return None
    if value in ("None", "True", "False"):
        return None
    if value.startswith("("):
        # several values are typed with spaces where argparse counts them, else with commas
        values = [part.strip() for part in value.strip("()").split(",") if part.strip()]
        separator = "," if action.nargs is None else " "
        value = separator.join(values)
    return f"{name} {value}"
