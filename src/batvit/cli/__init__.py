"""The command line: the only place that prints. Each command is a file of its own.

- ``options``: what several commands take.
- ``examples``: what stands at the end of each command's help.
- ``numbers``: the numbers that options take.
- ``load_models``: from options to models and pictures.
- ``completion``: what a shell reads to complete commands.
- ``console``, ``errors``: what is printed, of results and of errors.
- ``training_progress``: a part of ``train``.
- ``bench_tables``: a part of ``bench``.
- ``info``, ``eval``, ``bench``, ``export``, ``draw``, ``train``, ``plot``, ``compare``, ``tune``,
  ``demo``: the commands.
"""

import argparse
import importlib
import sys
from collections.abc import Iterable, Sequence
from typing import NoReturn

from batvit import __version__
from batvit.checks import explained
from batvit.cli import console
from batvit.cli.completion import add_completion
from batvit.cli.errors import is_input, one_line
from batvit.cli.examples import EXAMPLES

__all__ = ["COMMANDS", "Parser", "build_parser", "main"]

COMMANDS = ("demo", "info", "eval", "bench", "export", "draw", "train", "plot", "compare", "tune")

EXAMPLES_TITLE = "examples:"


class HelpFormatter(argparse.HelpFormatter):
    """Wraps the help of options, and keeps the line breaks that it and the examples have."""

    def _split_lines(self, text: str, width: int) -> list[str]:
        lines = []
        for line in text.splitlines():
            lines += super()._split_lines(line, width)
        return lines

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        if text.startswith(EXAMPLES_TITLE):
            return text
        return super()._fill_text(text, width, indent)


class Parser(argparse.ArgumentParser):
    """Says what is wrong with an option in one line, without the whole usage before it."""

    def error(self, message: str) -> NoReturn:
        """Leave with 2."""
        console.fail(f"{self.prog}: {message}; see {self.prog} --help")
        self.exit(2)


def build_parser(names: Iterable[str] = COMMANDS) -> Parser:
    """Return the parser of some commands; its result has ``run`` and ``parser`` of the command."""
    parser = Parser(prog="batvit", description="Vision Transformers with fewer tokens.")
    parser.add_argument("--version", action="version", version=f"batvit {__version__}")
    add_completion(parser)
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name in names:
        module = importlib.import_module(f"batvit.cli.{name}")
        text = (module.__doc__ or "").strip()
        command = commands.add_parser(
            name,
            help=text.splitlines()[0],
            description=text,
            epilog="\n  ".join((EXAMPLES_TITLE, *EXAMPLES[name])),
            formatter_class=HelpFormatter,
        )
        module.add_arguments(command)
        command.usage = _usage(command)
        kept = getattr(module, "kept", _nothing_kept)
        command.set_defaults(run=module.run, parser=command, kept=kept)
    return parser


def _usage(command: argparse.ArgumentParser) -> str:
    """Return what must be given; what may be given stands below it in the help."""
    named = []
    placed = []
    for action in command._actions:
        if not action.option_strings:
            several = " …" if action.nargs == "+" else ""
            placed.append(f"{action.metavar}{several}")
        elif action.required:
            named.append(f"{action.option_strings[-1]} {action.metavar}")
    for group in command._mutually_exclusive_groups:
        if group.required:
            choices = (f"{one.option_strings[0]} {one.metavar}" for one in group._group_actions)
            named.append(f"({' | '.join(choices)})")
    return " ".join(["%(prog)s", *placed, *named, "[options]"])


def _nothing_kept(args: argparse.Namespace) -> str:
    return "nothing was written"


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command.

    Returns:
        0; 2 after one line on standard error if the input was bad, 130 if it was interrupted.

    Raises:
        SystemExit: after ``--help`` and ``--version`` with 0, for a bad option with 2.
    """
    console.show_all_characters()
    argv = sys.argv[1:] if argv is None else argv
    # a command that is named is the only one imported
    is_named = bool(argv) and argv[0] in COMMANDS
    parser = build_parser(argv[:1] if is_named else COMMANDS)
    args = parser.parse_args(argv)
    try:
        args.run(args)
    except KeyboardInterrupt:
        console.fail(f"batvit {args.command}: interrupted; {args.kept(args)}")
        return 130
    except Exception as caught:
        error = explained(caught) if isinstance(caught, ImportError) else caught
        if not is_input(error):
            raise
        console.fail(f"batvit {args.command}: {one_line(error, args.parser)}")
        return 2
    return 0
