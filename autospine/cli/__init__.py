"""The command line: thin commands over `autospine.pipeline`."""

from autospine.cli.app import main

__all__ = ["main"]
