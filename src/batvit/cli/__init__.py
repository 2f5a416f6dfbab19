"""The command line: the only place that prints."""

import argparse
import sys
from collections.abc import Sequence

from batvit import __version__
from batvit.cli import bench, demo, draw, eval, info, train

COMMANDS = (demo, info, eval, bench, draw, train)


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command.

    Returns:
        0, or 2 after one line on standard error if the input was bad.
    """
    parser = argparse.ArgumentParser(prog="batvit", description="Vision Transformers with fewer tokens.")
    parser.add_argument("--version", action="version", version=f"batvit {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for module in COMMANDS:
        name = module.__name__.rsplit(".", 1)[-1]
        text = (module.__doc__ or "").strip()
        command = commands.add_parser(name, help=text.splitlines()[0], description=text)
        module.add_arguments(command)
        command.set_defaults(run=module.run)
    args = parser.parse_args(argv)
    try:
        args.run(args)
    except (ValueError, TypeError, OSError) as error:
        print(f"batvit {args.command}: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(f"batvit {args.command}: interrupted", file=sys.stderr)
        return 130
    return 0
