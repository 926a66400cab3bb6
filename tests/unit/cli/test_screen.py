import shlex

from autospine.cli.screen import say_next


def test_the_next_command_can_be_pasted_into_a_shell(capsys):
    words = ["evaluate", "label maps/it's", "REFERENCES"]
    say_next(*words, note=", where there are any")
    command = capsys.readouterr().out.removeprefix("next: ").removesuffix(", where there are any\n")
    assert shlex.split(command) == ["autospine", *words]
