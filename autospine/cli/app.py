"""The `autospine` command and what happens when it fails."""

import signal
import sys
import threading
from collections.abc import Callable, Sequence
from importlib import import_module
from pathlib import Path
from types import FrameType
from typing import Annotated, Any

import typer
from typer.core import TyperCommand
from typer.models import CommandFunctionType

import autospine
from autospine.core.errors import AutospineError

HELP_COLUMNS = 100
"""Most columns of a command's help text."""


class PlainCommand(TyperCommand):
    """A command whose help has room for its sentences in 80 columns, which panels leave it 20 of."""

    def __init__(self, *args: Any, **given: Any) -> None:
        super().__init__(*args, **{**given, "rich_markup_mode": None})


class App(typer.Typer):
    """Commands with plain help; their overview has panels."""

    def command(self, *args: Any, **given: Any) -> Callable[[CommandFunctionType], CommandFunctionType]:
        """As typer's."""
        return super().command(*args, cls=PlainCommand, **given)


app = App(
    name="autospine",
    help="Self-configuring 3D spine segmentation in CT and MR.",
    epilog="Errors are one line and exit code 1; add --debug anywhere for the traceback.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": HELP_COLUMNS},
)

COMMANDS = (
    "demo",
    "plan_and_preprocess",
    "train",
    "model",
    "compare",
    "predict",
    "evaluate",
    "phantoms",
    "info",
)
"""Modules of this package whose import registers commands, in the order of the help text."""

INTERRUPTED, TERMINATED = 130, 143
"""The exit codes that shells give to what Ctrl-C and SIGTERM have ended."""


def _version(wanted: bool) -> bool:
    if wanted:
        typer.echo(f"autospine {autospine.__version__}")
        raise typer.Exit
    return wanted


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    """Self-configuring 3D spine segmentation in CT and MR."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code: 0, 1 user's fault, 2 usage, 3 ours, 130, 143 stopped."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    debug = "--debug" in words
    words = [word for word in words if word != "--debug"]
    for module in COMMANDS:
        import_module(f"autospine.cli.{module}")
    try:
        _check_own_packages()
        return _run(words, debug)
    except AutospineError as error:
        if debug:
            raise
        from autospine.cli.screen import printable

        typer.secho(
            f"autospine: {printable(str(error))}", err=True, fg="red" if sys.stderr.isatty() else None
        )
        return 1
    except OSError as error:
        if debug:
            raise
        typer.echo(f"autospine: expected to read and write files freely, found {error}", err=True)
        return 1
    except Exception as error:
        if debug:
            raise
        typer.echo(
            f"autospine: internal error: {type(error).__name__}: {error}\n"
            "This is a fault of AutoSpine; run again with --debug and report what it prints.",
            err=True,
        )
        return 3


def _run(words: list[str], debug: bool) -> int:
    from autospine.system import log

    log.setup(debug)
    told: list[int] = []

    def terminate(number: int, frame: FrameType | None) -> None:
        # Like Ctrl-C: temporary files are removed and worker processes ended.
        told.append(number)
        signal.default_int_handler(number, frame)

    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, terminate)
    try:
        code = app(words, standalone_mode=True)
    except SystemExit as stop:
        code = stop.code
    if code == INTERRUPTED:  # typer has caught the interrupt
        anew = words[:1] == ["predict"] and "--continue" not in words
        how = "with --continue" if anew else "again"
        typer.echo(f"autospine: interrupted; run the same command {how} to go on", err=True)
        return TERMINATED if told else INTERRUPTED
    return int(code or 0)


def _check_own_packages() -> None:
    """Other distributions are called `planners` and `trainers` too; refuse to work with theirs."""
    home = Path(autospine.__file__).parents[1]
    for name in ("planners", "trainers"):
        found = Path(str(import_module(name).__file__)).parents[1]
        if found != home:
            raise AutospineError(
                f"expected AutoSpine's own package `{name}` in {home}, found another one in {found}; "
                "uninstall it or give AutoSpine an environment of its own"
            )
