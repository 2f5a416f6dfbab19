"""The command line: the only place that prints."""


def main() -> int:
    """Run a command."""
    raise NotImplementedError
