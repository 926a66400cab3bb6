"""The command line: thin commands over `autospine.pipeline`."""

import sys
from collections.abc import Sequence


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line, and end it without a traceback if Ctrl-C comes before a command has begun.

    Args:
        arguments: Words of the command line, without the program; by default those of this process.

    Returns:
        The exit code, as `autospine.cli.app.main` says.
    """
    try:
        from autospine.cli.app import main as run

        return run(arguments)
    except KeyboardInterrupt:
        sys.stderr.write("autospine: interrupted; run the same command again to go on\n")
        return 130


__all__ = ["main"]
