"""Fine-tune on a folder of pictures."""

import argparse


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Model, pictures and configuration."""


def run(args: argparse.Namespace) -> None:
    """Train."""
