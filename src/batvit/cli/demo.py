"""Train a small ViT on handwritten digits, and reduce its tokens."""

import argparse


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Model, pictures and configuration."""


def run(args: argparse.Namespace) -> None:
    """Train."""
