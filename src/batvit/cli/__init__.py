"""The command line: the only place that prints."""

import argparse
import importlib
import sys
from collections.abc import Sequence
from typing import NoReturn

import torch

from batvit import __version__
from batvit.storage.files import first_line

# how torch says that there is not enough
OF_MEMORY = ("allocate memory", "out of memory", "storage size calculation overflowed")
COMMANDS = ("demo", "info", "eval", "bench", "export", "draw", "train", "plot", "compare", "tune")


class Parser(argparse.ArgumentParser):
    """Says what is wrong with an option in one line, without the whole usage before it."""

    def error(self, message: str) -> NoReturn:
        """Leave with 2."""
        self.exit(2, f"{self.prog}: {message}; see {self.prog} --help\n")


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command.

    Returns:
        0; 2 after one line on standard error if the input was bad, 130 if it was interrupted.

    Raises:
        SystemExit: after ``--help`` and ``--version`` with 0, and for a bad option with 2, as argparse does.
    """
    argv = sys.argv[1:] if argv is None else argv
    parser = Parser(prog="batvit", description="Vision Transformers with fewer tokens.")
    parser.add_argument("--version", action="version", version=f"batvit {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    # the command asked for alone is imported: drawing and training need libraries that others do without
    for name in argv[:1] if argv and argv[0] in COMMANDS else COMMANDS:
        module = importlib.import_module(f"batvit.cli.{name}")
        text = (module.__doc__ or "").strip()
        command = commands.add_parser(name, help=text.splitlines()[0], description=text)
        module.add_arguments(command)
        command.set_defaults(run=module.run)
    args = parser.parse_args(argv)
    try:
        args.run(args)
    except KeyboardInterrupt:
        print(f"batvit {args.command}: interrupted", file=sys.stderr)
        return 130
    except Exception as error:
        if not _is_of_the_input(error):
            raise
        print(f"batvit {args.command}: {_one_line(error)}", file=sys.stderr)
        return 2
    return 0


def _is_of_the_input(error: Exception) -> bool:
    """Whether the user can do something about it; of the rest the traceback is what a bug report needs."""
    return isinstance(error, ValueError | TypeError | OSError) or is_memory(error)


def is_memory(error: Exception) -> bool:
    """Whether there was not enough memory; on a CPU torch has no class for it, and a compiler wraps what it meets."""
    said = str(error).lower()
    return isinstance(error, MemoryError | torch.OutOfMemoryError) or any(
        phrase in said for phrase in OF_MEMORY
    )


def _one_line(error: Exception) -> str:
    if is_memory(error):
        return f"not enough memory; lower --batch-size or --img-size ({first_line(error)})"
    text = str(error).strip()
    # what a loader's process raised carries its traceback, and says what is wrong at the end
    if "Traceback (most recent call last)" in text:
        text = text.splitlines()[-1].partition(": ")[2]
    return " ".join(text.split())
