"""Show tokens and MACs of every block."""

import argparse

from batvit.cli import console, options


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Model and configuration."""
    options.add_model(parser)
    options.add_config(parser)


def run(args: argparse.Namespace) -> None:
    """Print the table."""
    from batvit.cli import load_models
    from batvit.inspection.summary import info

    options.check_outputs(args.json, keep=load_models.inputs(args))
    models = load_models.load(args, pretrained=False)
    result = info(models.reduced, name=args.model)
    console.say(str(result))
    options.write_json(args.json, result.to_dict())
