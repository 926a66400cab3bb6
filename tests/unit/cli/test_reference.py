from pathlib import Path

from autospine.cli import reference
from autospine.cli.app import COMMANDS

PAGES = Path(__file__).parents[3] / "docs" / "reference"


def test_the_page_is_what_the_commands_say():
    assert (PAGES / "commands.md").read_text(encoding="utf-8") == reference.page(), "run `make docs`"


def test_the_page_of_other_tools_is_what_is_answered():
    page = reference.other_tools_page()
    assert (PAGES / "other-tools.md").read_text(encoding="utf-8") == page, "run `make docs`"
    assert "| `nnUNetv2_train` | `autospine train CONFIGURATION -d DATASET --fold FOLD` |" in page
    assert "| `3d_cascade_fullres` | fullres, which a `lowres` model helps by itself |" in page
    assert "| `-ta` | `predict` | name a model with `-m` |" in page


def test_every_command_and_every_option_is_explained():
    commands = reference.commands()
    assert list(dict.fromkeys(name.split()[0] for name in commands)) == list(COMMANDS)
    for name, command in commands.items():
        assert command.help, name
        for parameter in command.params:
            help_text = parameter.help.split("  [")[0]
            assert help_text[0].isupper(), f"{name} {parameter.name}"
            assert help_text.endswith("."), f"{name} {parameter.name}"
