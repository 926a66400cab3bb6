"""`docs/reference/commands.md`, made of the commands themselves, and `other-tools.md`, made of known habits.

`python -m autospine.cli.reference FOLDER` writes both pages; without FOLDER the first one is printed.
"""

import re
import sys
from collections.abc import Iterator, Mapping
from enum import StrEnum
from pathlib import Path
from typing import Any

import typer.main

from autospine.cli import habits
from autospine.cli.app import app, load_commands

INTRODUCTION = """\
# Commands

`autospine COMMAND --help` says the same in the terminal. Options may be written before or after arguments.
`make docs` makes this page of the commands; it is not edited by hand.

Everywhere:

- `--help` or `-h`; `autospine --version`.
- `autospine --install-completion` once: bash, zsh, fish or PowerShell then complete commands, options and \
names of datasets with the Tab key. `autospine --show-completion` prints what that adds.
- `--debug`, anywhere in the line: more messages, and the traceback of an error.
- Results go to standard output; progress and messages to standard error, as bars in a terminal, else as \
plain lines.
- A mistake is answered in one line, on standard error.

| exit code | meaning |
|---|---|
| 0 | The command has done its work. |
| 1 | There is an error that you can mend; the message says what is wrong, and what to do. |
| 2 | The command line was not understood. |
| 3 | There is a fault in AutoSpine. |
| 130, 128 + n | Ctrl-C or another signal n, such as SIGTERM (143), has interrupted the command; the \
same command goes on. |
"""

OTHER_TOOLS = """\
# Coming from nnU-Net v2 or TotalSegmentator

What you used to type, and what to type here. AutoSpine says the same when it is given one of these words.
`make docs` makes this page; it is not edited by hand. [README](../../README.md#coming-from-nnu-net) has the
other differences, and the [glossary](../glossary.md) translates the terms.
"""

MORE = {
    "plan-and-preprocess": "[Planning](../concepts/planning.md)",
    "plan": "[Planning](../concepts/planning.md)",
    "train": "[Train](../how-to/train.md)",
    "model export": "[Share a model](../how-to/share-models.md)",
    "model import": "[Share a model](../how-to/share-models.md)",
    "model import-weights": "[Import weights](../how-to/import-weights.md)",
    "compare": "[Which is best?](../how-to/compare-networks.md#which-is-best)",
    "predict": "[Predict](../how-to/predict.md)",
    "fingerprint": "[The fingerprint](../concepts/fingerprint.md)",
    "anatomy identify": "[Name vertebrae](../how-to/name-vertebrae.md)",
    "anatomy measure": "[Measurements](../concepts/measurements.md)",
    "convert labels": "[Convert labels](../how-to/convert-labels.md)",
    "convert dataset": "[Public datasets](../how-to/dataset.md#public-datasets)",
    "phantom": "[Phantoms](../concepts/phantom.md)",
}
"""Page that explains a command at length."""


def commands() -> dict[str, Any]:
    """Return every command by its name, which is two words in a group, in the order of the help."""
    load_commands()
    group: Any = typer.main.get_command(app)
    found: dict[str, Any] = {}
    for name in group.list_commands(None):
        command = group.commands[name]
        inner = getattr(command, "commands", None)
        found |= (
            {f"{name} {word}": inner_command for word, inner_command in inner.items()}
            if inner
            else {name: command}
        )
    return found


def page() -> str:
    """Return the page of all commands."""
    return "\n".join([INTRODUCTION, *(_section(name, command) for name, command in commands().items())])


def other_tools_page() -> str:
    """Return the page of the commands and options of other tools."""
    commands = {f"`{old}`": f"`{ours}`" for old, ours in habits.COMMANDS.items()}
    configurations = {f"`{old}`": _in_code(ours.advice) for old, ours in habits.CONFIGURATIONS.items()}
    return "\n".join(
        [
            OTHER_TOOLS,
            _table("Commands", "command", commands),
            _table("Configurations", "configuration", configurations),
            _table("Options of every command", "option", _advice(habits.EVERYWHERE)),
            _table_of_options(),
        ]
    )


def _table_of_options() -> str:
    """The options of single commands; those that several answer alike stand once."""
    answered: dict[tuple[str, str], list[str]] = {}
    for name, table in habits.OPTIONS.items():
        for option, advice in table.items():
            answered.setdefault((option, advice), []).append(f"`{name}`")
    head = ["## Options of single commands", "", "| option | of `autospine` | here |", "|---|---|---|"]
    rows = (
        f"| `{option}` | {', '.join(names)} | {_cell(_in_code(advice))} |"
        for (option, advice), names in answered.items()
    )
    return "\n".join([*head, *rows, ""])


def _advice(table: Mapping[str, str]) -> dict[str, str]:
    return {f"`{option}`": _in_code(ours) for option, ours in table.items()}


def _in_code(text: str) -> str:
    """Return a sentence with the options in it as code."""
    parts = text.split("`")
    parts[::2] = [re.sub(r"(?<![\w-])(-{1,2}[a-z][\w-]*)", r"`\1`", part) for part in parts[::2]]
    return "`".join(parts)


def _table(title: str, what: str, rows: Mapping[str, str]) -> str:
    head = [f"## {title}", "", f"| {what} | here |", "|---|---|"]
    return "\n".join([*head, *(f"| {old} | {_cell(new)} |" for old, new in rows.items()), ""])


def _section(name: str, command: Any) -> str:
    """The section of a command: its help, and a table of its arguments and options."""
    more = f"More: {MORE[name]}.\n\n" if name in MORE else ""
    table = "\n".join(["| argument or option | default | meaning |", "|---|---|---|", *_rows(command)])
    return f"## `autospine {name}`\n\n{command.help}\n\n{more}{table}\n"


def _rows(command: Any) -> Iterator[str]:
    for parameter in command.params:
        if parameter.name != "help":
            meaning = " ".join(filter(None, (parameter.help, _choices(parameter))))
            yield f"| {_names(parameter)} | {_default(parameter)} | {_cell(meaning)} |"


def _choices(parameter: Any) -> str:
    """A sentence that lists the values that an option takes; empty where any value of its type will do."""
    kind = parameter.type_descriptor.annotation
    if not (isinstance(kind, type) and issubclass(kind, StrEnum)):
        return ""
    return f"One of {', '.join(f'`{choice.value}`' for choice in kind)}."


def _names(parameter: Any) -> str:
    """The names of an option, the long one first with the placeholder of its value."""
    if parameter.param_type_name == "argument":
        return f"`{parameter.name.upper()}`"
    first, *others = sorted([*parameter.opts, *parameter.secondary_opts], key=lambda name: name[:2] != "--")
    with_value = f"{first} {parameter.metavar}" if parameter.metavar else first
    return ", ".join(f"`{name}`" for name in (with_value, *others))


def _default(parameter: Any) -> str:
    """A default that is a value; the help of an option states any other."""
    if parameter.required:
        return "required"
    shown = getattr(parameter, "show_default", None)
    default = shown if isinstance(shown, str) else getattr(parameter.default, "value", parameter.default)
    if isinstance(default, bool) and getattr(parameter, "is_flag", False):
        return "on" if default else "off"
    return "" if default is None or callable(default) else f"`{default}`"


def _cell(text: str | None) -> str:
    return " ".join((text or "").replace("|", "\\|").split())


def main() -> None:
    """Write both pages, or print the first one."""
    if len(sys.argv) > 1:
        folder = Path(sys.argv[1])
        (folder / "commands.md").write_text(page(), encoding="utf-8")
        (folder / "other-tools.md").write_text(other_tools_page(), encoding="utf-8")
    else:
        typer.echo(page(), nl=False)


if __name__ == "__main__":
    main()
