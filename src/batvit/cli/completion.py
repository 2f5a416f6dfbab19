"""Completion of commands, options and file names in a shell."""

import argparse
from collections.abc import Sequence
from typing import Any

from batvit.checks import MissingPackageError, installed

SHELLS = ("bash", "zsh", "tcsh")
FILES = ("FILE", "PICTURE")
FOLDERS = ("DIR", "RUN")


class PrintCompletion(argparse.Action):
    """Prints what a shell reads to complete commands, and ends."""

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: str | Sequence[Any] | None,
        option_string: str | None = None,
    ) -> None:
        """Print it for the shell that is named.

        Raises:
            argparse.ArgumentError: if shtab is not installed.
        """
        try:
            shtab = installed("shtab")
        except MissingPackageError as error:
            raise argparse.ArgumentError(self, str(error)) from error
        _complete_files(parser, shtab)
        print(shtab.complete(parser, shell=values))
        parser.exit()


def add_completion(parser: argparse.ArgumentParser) -> None:
    """Add the option of the program that prints it."""
    parser.add_argument(
        "--print-completion",
        action=PrintCompletion,
        choices=SHELLS,
        help='completion for a shell: eval "$(batvit --print-completion bash)"',
    )


def _complete_files(parser: argparse.ArgumentParser, shtab: Any) -> None:
    """Have every option that takes a file or a folder complete its name."""
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for command in action.choices.values():
                _complete_files(command, shtab)
        changed: Any = action
        if action.metavar in FILES:
            changed.complete = shtab.FILE
        elif action.metavar in FOLDERS:
            changed.complete = shtab.DIRECTORY
