"""The `autospine` command: how it starts, and how it ends when something is wrong.

Only the module of the command that is given is imported, and PyTorch only after the names of datasets,
configurations, folds, models and inputs have been checked.
"""

import re
import shlex
import sys
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperCommand, TyperGroup
from typer.models import CommandFunctionType

import autospine
from autospine.cli.habits import argument_habit, command_habit, option_habit
from autospine.core.errors import AutospineError

HELP_COLUMNS = 100
"""Most columns of a command's help text."""

COMMANDS = {
    "demo": "demo",
    "plan-and-preprocess": "plan_and_preprocess",
    "train": "train",
    "model": "model",
    "compare": "compare",
    "experiment": "experiment",
    "attention": "inspect_attention",
    "predict": "predict",
    "evaluate": "evaluate",
    "report": "reporting",
    "anatomy": "measure",
    "dataset": "exclusion",
    "verify": "plan_and_preprocess",
    "fingerprint": "plan_and_preprocess",
    "plan": "plan_and_preprocess",
    "preprocess": "plan_and_preprocess",
    "phantom": "phantoms",
    "synthesise": "synthesise",
    "convert": "convert",
    "info": "info",
}
"""Module of this package that has each command, in the order of the help."""

PLAIN_WORDS = (
    (r"Input should be (a valid \w+), unable to parse .*", r"expected \1"),
    (r"Input should be (?=greater|less)", "expected a value "),
    (r"Input should be ", "expected "),
    (r"Value error, ", ""),
    (r" \(Possible options: (.*)\)$", r"; did you mean \1?"),
)
"""Words of the parser's library, and ours for them."""

_UsageError: type[Exception] = typer.BadParameter.__bases__[0]


class PlainCommand(TyperCommand):
    """A command with plain help: panels would leave its sentences 20 of 80 columns."""

    def __init__(self, *args: Any, **given: Any) -> None:
        super().__init__(*args, **{**given, "rich_markup_mode": None})

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Refuse options given twice that take one value, of which the first would be lost, and parse.

        Where a shell has put several names in the place of one (`-i *.nii.gz`), say how to give them, and for
        options of nnU-Net and TotalSegmentator, what to give here.
        """
        own = {name for option in self.params for name in (*option.opts, *option.secondary_opts)}
        command = str(ctx.command_path).partition(" ")[2]
        if habit := option_habit(command, args, own) or argument_habit(command, args):
            raise _UsageError(habit, ctx)
        try:
            values, spare, given = self.make_parser(ctx).parse_args([*args])
        except _UsageError as error:
            error.ctx = ctx  # type: ignore[attr-defined]
            raise
        for option, times in Counter(filter(_takes_one, given)).items():
            if times > 1:
                names = " / ".join(f"'{name}'" for name in (*option.opts, *option.secondary_opts))
                raise _UsageError(f"Expected {names} once, found it {times} times", ctx)
        try:
            return super().parse_args(ctx, [*args])
        except _UsageError as error:
            name = _spread(self.params, args)
            if type(error).__name__ == "MissingParameter":
                lacking = [param for param in self.params if param.required and not _is_given(param, values)]
                several = len(spare) > len(lacking) or any(Path(word).is_file() for word in spare)
                if name and several:
                    raise _UsageError(
                        f"missing {lacking[0].opts[-1]}; {_one_by_one(command, name)}", ctx
                    ) from None
                line = shlex.join(["autospine", *command.split(), *_completed(args, lacking, spare)])
                raise _UsageError(f"missing {lacking[0].opts[-1]}; give `{line}`", ctx) from None
            if name:
                error.message += f"; {_one_by_one(command, name)}"  # type: ignore[attr-defined]
            raise

    def invoke(self, ctx: Any) -> Any:
        """Run the command.

        Raises:
            AutospineError: If other people's code has asked the program to end, with a number, a text or
                nothing.
        """
        try:
            return super().invoke(ctx)
        except SystemExit as error:
            raise AutospineError(
                f"expected the command to end by itself, found that a part of it, a plug-in perhaps, has "
                f"asked the program to end ({error!r}); run again with --debug to see which"
            ) from error


def _spread(params: Sequence[Any], args: Sequence[str]) -> str | None:
    """Return the option of several values that more than one word follows, if there is one."""
    names = {name for option in params if getattr(option, "multiple", False) for name in option.opts}
    for name, _, word in zip(args, args[1:], args[2:], strict=False):
        if name in names and not word.startswith("-"):
            return name
    return None


def _is_given(param: Any, values: Mapping[str, Any]) -> bool:
    """Tell whether a command line has a value for a parameter, by the values that were parsed."""
    value = values.get(param.name)
    return isinstance(value, str | list | tuple) and bool(value)


def _example(param: Any) -> tuple[str, ...]:
    """Return words that give a parameter, such as `-i PATH`."""
    word = str(param.metavar or param.name).upper()
    return (word,) if param.param_type_name == "argument" else (param.opts[-1], word)


def _completed(args: Sequence[str], lacking: Sequence[Any], spare: Sequence[str]) -> list[str]:
    """Return a command line with the parameters that it lacks.

    Words that no parameter takes (`predict images out`) are taken for their values, in order.
    """
    words, values = [*args], [*spare[: len(lacking)]]
    for value in values:
        words.remove(value)
    for param in lacking:
        option, *example = _example(param)
        words += [option, values.pop(0)] if example and values else [option, *example]
    return words


def _one_by_one(command: str, option: str) -> str:
    """Return how to give several values of an option."""
    if command == "train":
        return f"give one {option}, and run the command once for each, or with {option} all"
    return f"give {option} before each" + (", or a folder" if option in ("-i", "--input") else "")


def _takes_one(param: Any) -> bool:
    """Return whether a second value of an option replaces the first; a plain switch says the same twice."""
    if param.param_type_name != "option" or param.multiple or getattr(param, "count", False):
        return False
    return not param.is_flag or bool(param.secondary_opts)


class CommandGroup(TyperGroup):
    """A group of commands, whose `--help` states no type: it takes no value."""

    def get_help_option(self, ctx: Any) -> Any:
        """Return the option `--help`."""
        option = super().get_help_option(ctx)
        if option is not None:
            option.metavar = ""
        return option


class Overview(CommandGroup):
    """The commands in the order of `COMMANDS`, in whichever order their modules were imported."""

    def list_commands(self, ctx: Any) -> list[str]:
        """Return the names of the commands."""
        return [name for name in COMMANDS if name in self.commands]

    def get_params(self, ctx: Any) -> list[Any]:
        """Return the options; those of completion, which are switches, state no type."""
        found = super().get_params(ctx)
        for option in found:
            if str(option.name).endswith("_completion"):
                option.metavar = ""
        return found

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """Find a command; for one of nnU-Net or TotalSegmentator, say which it is here."""
        if args and (ours := command_habit(args)):
            raise _UsageError(f"expected a command of AutoSpine, found {args[0]}; give {ours}", ctx)
        return super().resolve_command(ctx, args)


class App(typer.Typer):
    """Commands with plain help; their overview has panels."""

    def __init__(self, **given: Any) -> None:
        super().__init__(**{"cls": CommandGroup, **given})

    def command(self, *args: Any, **given: Any) -> Callable[[CommandFunctionType], CommandFunctionType]:
        """Register a command, as typer's method of this name does."""
        return super().command(*args, cls=PlainCommand, **given)


app = App(
    name="autospine",
    cls=Overview,
    help="Self-configuring 3D spine segmentation in CT and MR.",
    epilog="Errors are one line and exit code 1; add --debug anywhere for the traceback.",
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": HELP_COLUMNS},
)


def load_commands(name: str | None = None) -> None:
    """Import the module of a command, or of all where the name is that of none."""
    for module in [COMMANDS[name]] if name in COMMANDS else dict.fromkeys(COMMANDS.values()):
        import_module(f"autospine.cli.{module}")


def _version(wanted: bool) -> bool:
    if wanted:
        typer.echo(f"autospine {autospine.__version__}")
        raise typer.Exit
    return wanted


@app.callback()
def _root(
    version: Annotated[
        bool,
        typer.Option("--version", metavar="", callback=_version, is_eager=True, help="Show the version."),
    ] = False,
) -> None:
    """Self-configuring 3D spine segmentation in CT and MR."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line.

    Args:
        arguments: Words of the command line, without the program; by default those of this process.

    Returns:
        The exit code: 0, 1 for an error that the user can mend, 2 for a command line that was not understood,
        3 for a fault of AutoSpine, 130 if interrupted, 128 + n if another signal n has asked it to end.
    """
    from autospine.system.streams import showing

    words = list(sys.argv[1:] if arguments is None else arguments)
    with showing():
        return _answer([word for word in words if word != "--debug"], debug="--debug" in words)


def _answer(words: list[str], *, debug: bool) -> int:
    """Run a command, show in one line what is wrong with it, and return the exit code."""
    from autospine.system.described_errors import full_memory

    try:
        _check_own_packages()  # before the commands, which import from these packages
        load_commands(words[0] if words else None)
        return _run(words, debug)
    except AutospineError as error:
        if debug:
            raise
        _complain(str(error), fg="red" if sys.stderr.isatty() else None)
        return 1
    except OSError as error:
        if debug:
            raise
        _complain(_what_the_system_says(error))
        return 1
    except SystemExit as error:  # a shell has been told how to complete a line
        return int(error.code or 0)
    except Exception as error:
        if debug:
            raise
        if full := full_memory(error):
            _complain(full)
            return 1
        _complain(
            f"internal error: {type(error).__name__}: {error}\n"
            "This is a fault of AutoSpine; run again with --debug and report what it prints."
        )
        return 3


def _run(words: list[str], debug: bool) -> int:
    from autospine.system import log
    from autospine.system.signals import INTERRUPTED, heeding_signals

    log.setup(debug)
    try:
        with heeding_signals() as signals:
            code = app(words, prog_name="autospine", standalone_mode=False)
    except _UsageError as error:
        return _show_usage(error)
    except typer.Abort:
        code = 1
    if code == INTERRUPTED:  # typer has caught the interrupt
        anew = words[:1] == ["predict"] and "--continue" not in words
        how = "with --continue" if anew else "again"
        _complain(f"interrupted; run the same command {how} to go on")
        return 128 + signals[0] if signals else INTERRUPTED
    return int(code or 0)


def _what_the_system_says(error: OSError) -> str:
    """Return an error of the system that no part of AutoSpine has expected, in one line, with what to do."""
    from autospine.storage.atomic import DISK_FULL

    if error.errno not in DISK_FULL:
        return f"expected to read and write files freely, found {error}"
    where = " ".join(getattr(error, "__notes__", ())[:1])
    return (
        f"expected space on the disk, found it full ({error}){where and ' ' + where}; free some and run again"
    )


def _show_usage(error: Any) -> int:
    """Show in one line why a command line was not understood, or the help if it has no command."""
    if type(error).__name__ == "NoArgsIsHelpError":
        if text := error.format_message():  # empty where panels have been printed already
            typer.echo(text)
        return int(error.exit_code)
    message = " ".join(error.format_message().split()).removesuffix(".").replace(". Did", "; did")
    for pattern, plain in PLAIN_WORDS:
        message = re.sub(pattern, plain, message)
    where = error.ctx.command_path if error.ctx else "autospine"
    see = " See" if message.endswith("?") else "; see"
    _complain(f"{message[:1].lower()}{message[1:]}{see} `{where} --help`")
    return int(error.exit_code)


def _complain(text: str, fg: str | None = None) -> None:
    """Show why a command ends, without what names from other people's files would do to the terminal."""
    from autospine.system.log import message

    typer.secho(f"autospine: {message(text)}", err=True, fg=fg)


def _check_own_packages() -> None:
    """Refuse the packages of other distributions that are called `planners` and `trainers`, too."""
    home = Path(autospine.__file__).parents[1]
    for name in ("planners", "trainers"):
        spec = find_spec(name)
        other = None if spec is None else Path(str(spec.origin)).parents[1]
        if other != home:
            raise AutospineError(
                f"expected AutoSpine's own package `{name}` in {home}, found another one in {other}; "
                "uninstall it or give AutoSpine an environment of its own"
            )
