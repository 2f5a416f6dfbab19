"""Show tokens and MACs of every block."""

import argparse

from batvit.cli import models, options
from batvit.info import info


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Model and configuration."""
    options.add_model(parser)
    options.add_config(parser)


def run(args: argparse.Namespace) -> None:
    """Print the table."""
    options.check_outputs(args.json, keep=models.inputs(args))
    pair = models.load(args, pretrained=False)
    result = info(pair.reduced, name=args.model)
    options.say(str(result))
    options.write_json(args.json, result.to_dict())
