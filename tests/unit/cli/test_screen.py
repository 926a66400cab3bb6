import re
import shlex

import pytest
from rich.table import Table

from autospine.cli.screen import say_next, show_table, table_of


def test_the_next_command_can_be_pasted_into_a_shell(capsys):
    words = ["evaluate", "label maps/it's", "REFERENCES"]
    say_next(*words, note=", where there are any")
    command = capsys.readouterr().out.removeprefix("next: ").removesuffix(", where there are any\n")
    assert shlex.split(command) == ["autospine", *words]


def cases() -> Table:
    table = table_of("case", "status", "voxels S P L", "seconds")
    for number in range(2):
        table.add_row(f"a_long_name_of_case_{number}", "written", "512 512 300", "12.5")
    return table


@pytest.fixture
def terminal(monkeypatch):
    """Standard output passes for a terminal of so many columns."""
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("NO_COLOR", raising=False)
    return lambda columns: monkeypatch.setenv("COLUMNS", str(columns))


@pytest.mark.parametrize(
    ("columns", "headings", "left_out"),
    [
        (200, ["case", "status", "voxels", "S", "P", "L", "seconds"], ""),
        (42, ["case", "status", "voxels", "S", "P", "L", "seconds"], ""),
        (40, ["case", "status", "voxels", "S", "P", "L"], "seconds"),
        (25, ["case", "status"], "voxels S P L, seconds"),
        (12, ["case"], "status, voxels S P L, seconds"),
    ],
)
def test_columns_without_room_are_left_out_from_the_right_and_named(
    terminal, capsys, columns, headings, left_out
):
    terminal(columns)
    show_table(cases())
    said = re.sub(r"\x1b\[[\d;]*m", "", capsys.readouterr().out)
    lines = [line.rstrip() for line in said.splitlines()]
    assert lines[0].split() == headings
    table = [line for line in lines if not line.startswith("a wider")]
    assert all(len(line) <= columns for line in table)
    joined = "".join(line.split("  ")[0] for line in table[1:])
    assert joined == "a_long_name_of_case_0a_long_name_of_case_1", "names are broken, not cut"
    assert f"a wider terminal shows: {left_out}" in said if left_out else "a wider terminal" not in said


def test_in_a_file_a_table_is_as_wide_as_it_needs_to_be(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "20")
    show_table(cases())
    assert "a_long_name_of_case_1  written   512 512 300     12.5" in capsys.readouterr().out
