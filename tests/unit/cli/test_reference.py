from pathlib import Path

from autospine.cli import reference
from autospine.cli.app import COMMANDS

PAGE = Path(__file__).parents[3] / "docs" / "reference" / "commands.md"


def test_the_page_is_what_the_commands_say():
    assert PAGE.read_text(encoding="utf-8") == reference.page(), "run `make docs`"


def test_every_command_and_every_option_is_explained():
    commands = reference.commands()
    assert list(dict.fromkeys(name.split()[0] for name in commands)) == list(COMMANDS)
    for name, command in commands.items():
        assert command.help, name
        for parameter in command.params:
            help_text = parameter.help.split("  [")[0]
            assert help_text[0].isupper(), f"{name} {parameter.name}"
            assert help_text.endswith("."), f"{name} {parameter.name}"
