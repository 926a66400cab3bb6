import io
import re
import subprocess
import sys
import time

import pytest
from rich.console import Console
from rich.table import Table

from autospine.system import log


@pytest.fixture
def lines(monkeypatch) -> io.StringIO:
    """What is written where there is no terminal."""
    text = io.StringIO()
    monkeypatch.setattr(log, "CONSOLE", Console(file=text, force_terminal=False, highlight=False))
    return text


@pytest.fixture
def terminal(monkeypatch) -> io.StringIO:
    text = io.StringIO()
    console = Console(file=text, force_terminal=True, color_system=None, width=200)
    monkeypatch.setattr(log, "CONSOLE", console)
    return text


def test_short_work_says_nothing(clock, lines):
    with log.progress("reading", 3) as meter:
        for _ in range(3):
            clock.now += 0.6
            meter.advance()
    assert lines.getvalue() == ""


def test_long_work_says_how_long_it_will_take(clock, lines):
    with log.progress("reading", 8) as meter:
        for _ in range(8):
            clock.now += 5
            meter.advance()
    assert lines.getvalue().splitlines() == [
        "reading: 1/8, 5 s, 35 s left",
        "reading: 3/8, 15 s, 25 s left",
        "reading: 5/8, 25 s, 15 s left",
        "reading: 7/8, 35 s, 5 s left",
        "reading: 8/8, 40 s",
    ]


def test_work_of_unknown_length_says_how_far_it_is(clock, lines):
    with log.progress("waiting", None) as meter:
        clock.now += 3
        meter.update("slice 7")
        meter.advance(2.5)
    assert lines.getvalue().splitlines()[0] == "waiting: 2.5, 3 s, slice 7"


def test_a_share_is_said_in_percent(clock, lines):
    with log.progress("training", 40, percent=True) as meter:
        clock.now += 5
        meter.advance(10)
    assert lines.getvalue().splitlines() == ["training: 25 %, 5 s, 15 s left"]


def test_what_was_done_before_tells_nothing_of_the_time_left(clock, lines):
    with log.progress("training", 100, done=80, percent=True) as meter:
        clock.now += 3
        meter.advance(0)
        clock.now += 10
        meter.advance(10)
        clock.now += 13
        meter.advance(10)
    assert lines.getvalue().splitlines() == [
        "training: 80 %, 3 s",
        "training: 90 %, 13 s, 13 s left",
        "training: 100 %, 26 s",
    ]


def test_the_time_left_is_that_of_the_last_minute(clock, lines):
    """A machine that was busy at first makes no later estimate too long, and one that is busy now is seen."""
    with log.progress("reading", 100) as meter:
        for seconds in (100.0, *[10.0] * 8):
            clock.now += seconds
            meter.advance(10)
    said = lines.getvalue().splitlines()
    assert said[0] == "reading: 10/100, 100 s, 900 s left"
    assert said[-1] == "reading: 90/100, 180 s, 10 s left"


@pytest.mark.parametrize("steps_at_once", [1, 2])
def test_a_bar_estimates_the_time_left_of_slow_steps(clock, terminal, steps_at_once):
    """Two processes that end together every two minutes are as fast as one that takes a minute a step."""
    with log.progress("phantoms", 12) as meter:
        for _ in range(8 // steps_at_once):
            clock.now += 60 * steps_at_once
            for _ in range(steps_at_once):
                meter.advance()
        terminal.truncate(0)
        log._current.refresh()
    assert "8/12" in terminal.getvalue() and "left 0:04:00" in terminal.getvalue()


def test_a_bar_knows_no_time_left_before_the_first_step(clock, terminal):
    with log.progress("phantoms", 12, done=3) as meter:
        clock.now += 60
        meter.advance(0)
        log._current.refresh()
    assert "left -:--:--" in terminal.getvalue()


@pytest.mark.parametrize("terminal_", [True, False])
def test_nothing_is_shown_to_who_has_not_asked(clock, monkeypatch, terminal_):
    """As from Python, where nobody calls `setup`."""
    text = io.StringIO()
    monkeypatch.setattr(log, "CONSOLE", Console(file=text, force_terminal=terminal_, quiet=True))
    with log.progress("reading", 3) as meter:
        clock.now += 60
        meter.advance()
        meter.update("1 of 3")
    assert list(log.track([1, 2], "reading")) == [1, 2]
    assert text.getvalue() == ""


def test_a_program_that_predicts_prints_nothing_by_itself():
    run = (
        "from autospine.system import log; import logging\n"
        "assert log.CONSOLE.quiet and not logging.getLogger('autospine').handlers\n"
        "log.QUIET_SECONDS = 0\n"
        "with log.progress('reading', 3) as meter: meter.advance()\n"
        "log.get_logger('autospine.x').info('said')\n"
    )
    done = subprocess.run([sys.executable, "-c", run], capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("", "")


def test_a_bar_begins_where_the_work_goes_on(terminal):
    with log.progress("training", 100, done=80, percent=True) as meter:
        meter.advance(5)
        log._current.refresh()
    assert "85 %" in terminal.getvalue()


def test_a_bar_counts_steps_or_percent_and_is_not_there_for_nothing(terminal):
    with (
        log.progress("folds", 40, percent=True) as share,
        log.progress("cases", 40) as count,
        log.progress("nothing", 0),
    ):
        share.advance(10)
        count.advance(10)
        log._current.refresh()
    said = terminal.getvalue()
    assert "25 %" in said
    assert "10/40" in said
    assert "nothing" not in said


def test_the_last_line_is_written_after_an_error(clock, lines):
    with pytest.raises(KeyError), log.progress("reading", 4) as meter:
        clock.now += 3
        meter.advance()
        raise KeyError
    assert lines.getvalue().splitlines()[-1].startswith("reading: 1/4")


def test_long_lines_are_not_broken(clock, lines):
    with log.progress("word " * 60, 2) as meter:
        clock.now += 3
        meter.advance()
        assert len(lines.getvalue().splitlines()) == 1


def test_track_gives_the_items_and_counts_them(clock, lines):
    seen = []
    for item in log.track("abc", "letters"):
        clock.now += 12
        seen.append(item)
    assert seen == ["a", "b", "c"]
    assert "letters: 2/3, 24 s, 12 s left" in lines.getvalue()
    assert list(log.track(iter([1, 2]), "numbers", total=2)) == [1, 2]


def test_bars_are_drawn_in_a_terminal_and_may_be_nested(terminal):
    with log.progress("outer", 2) as outer:
        for _ in range(2):
            for _ in log.track(range(3), "inner"):
                pass
            outer.advance()
            outer.update("half")
    assert "outer" in terminal.getvalue()
    assert log._current is None
    with pytest.raises(KeyError), log.progress("again", None):
        raise KeyError
    assert log._current is None


def test_what_is_said_of_a_bar_stands_underneath_and_is_cut_to_the_width(terminal):
    with log.progress("training", 2) as meter:
        meter.update("loss 0.5\n" + "w 1.00 " * 60)
        log._current.refresh()
    lines = [line.rstrip() for line in terminal.getvalue().splitlines()]
    assert any(line.endswith("  loss 0.5") for line in lines)
    assert any(line.startswith("  w 1.00") and line.endswith("…") and len(line) <= 200 for line in lines)


@pytest.mark.parametrize("width", [40, 60, 80, 120])
def test_the_step_and_the_time_left_are_on_one_line_in_every_terminal(monkeypatch, width):
    text = io.StringIO()
    monkeypatch.setattr(
        log, "CONSOLE", Console(file=text, force_terminal=True, color_system=None, width=width)
    )
    with log.progress("5 folds, training", 100, percent=True, ends=time.monotonic() + 3600) as meter:
        meter.advance(12)
        log._current.refresh()
    shown = [line for line in text.getvalue().splitlines() if "12 %" in line]
    assert shown and all(re.search(r"12 %.* left (1:00:00|0:59:5\d)", line) for line in shown)


def test_lines_of_text_stand_under_their_line_where_there_is_no_terminal(clock, lines):
    with log.progress("training", 2) as meter:
        meter.update("fold 0: loss 0.5\nfold 1: loss 0.6")
        clock.now += 3
        meter.advance()
    shown = ["training: 1/2, 3 s, 3 s left", "  fold 0: loss 0.5", "  fold 1: loss 0.6"]
    assert lines.getvalue().splitlines()[:3] == shown


def test_where_the_end_is_known_the_time_left_is_that_until_then(clock, lines, terminal):
    with log.progress("training", 100, percent=True, ends=clock.now + 90) as meter:
        clock.now += 30
        meter.advance(10)
        log._current.refresh()
    assert "left 0:01:00" in terminal.getvalue()


def test_lines_say_the_time_until_a_known_end(clock, lines):
    with log.progress("training", 100, percent=True, ends=clock.now + 90) as meter:
        for seconds in (30, 70):
            clock.now += seconds
            meter.advance(10)
    assert lines.getvalue().splitlines() == [
        "training: 10 %, 30 s, 60 s left",
        "training: 20 %, 100 s, 0 s left",
    ]


def test_a_time_without_progress_makes_no_endless_estimate(clock, lines):
    with log.progress("training", 100) as meter:
        clock.now += 50
        meter.advance(50)
        for _ in range(7):
            clock.now += 10
            meter.advance(0)
    assert lines.getvalue().splitlines()[-1] == "training: 50/100, 120 s, 120 s left"


def test_messages_go_to_standard_error_as_plain_lines(loggers, capsys):
    log.setup()
    for logger in loggers:
        logger.info("%s says [bold]this[/]", logger.name)
    log.get_logger("autospine.io.images").debug("hidden")
    out, err = capsys.readouterr()
    assert out == ""
    assert err.splitlines() == [f"{logger.name} says [bold]this[/]" for logger in loggers]
    log.setup(debug=True)
    log.get_logger("autospine.io.images").debug("shown")
    assert capsys.readouterr().err == "autospine.io.images: shown\n"


def test_setting_up_twice_does_not_double_the_messages(loggers, capsys):
    log.setup()
    log.setup()
    loggers[0].warning("once")
    assert capsys.readouterr().err == "once\n"


def test_messages_in_a_terminal_keep_their_brackets(loggers, terminal):
    log.setup()
    loggers[0].info("found [3] cases")
    assert "found [3] cases" in terminal.getvalue()


STEERING = (
    *(
        "\x1b[2J",
        "\x1b]0;owned\x07",
        "\x9b31m",
        "\x90q\x9c",
        "\r",
        "\x08\x08",
        "\x7f",
        "\x00",
        "\x0b",
        "\x0c",
    ),
    *("\u202e", "\u2066", "\u2067", "\u200f", "\u061c", "\u2028", "\u2029", "\x85", "\udcfc"),
)
"""Texts that move the cursor, colour or reverse what follows, break lines, or cannot be encoded."""


@pytest.mark.parametrize("evil", STEERING, ids=ascii)
@pytest.mark.parametrize("terminal", [False, True])
def test_names_of_others_do_not_steer_the_terminal(evil, terminal, capsys, monkeypatch):
    text = io.StringIO()
    console = log.PlainConsole(file=text, force_terminal=terminal, color_system=None, width=100)
    monkeypatch.setattr(log, "CONSOLE", console)
    log.setup()
    log.get_logger("autospine.test").warning("case %s is odd", f"a{evil}b")
    console.print(f"a{evil}b", markup=False)
    table = Table("case")
    table.add_row(f"a{evil}b")
    console.print(table)
    with log.progress(f"a{evil}b", 2) as meter:
        meter.update(f"a{evil}b")
        console.print("in between")
    shown = text.getvalue() + capsys.readouterr().err
    shown.encode()
    own = ("\x1b[?25l", "\x1b[?25h", "\x1b[2K", "\x1b[1A", "\r") if terminal else ()  # the progress bar's
    for sequence in own:
        shown = shown.replace(sequence, "")
    assert not set(shown) & set(evil) - set("a[]0;owned2J31mq")
    assert "\N{REPLACEMENT CHARACTER}" in shown or "\\udcfc" in shown


def test_a_name_with_a_line_break_is_no_message_of_its_own(capsys):
    assert log.message("a\nautospine: sound") == "a\n  autospine: sound"
    assert log.message("faults:\n  one\n  two") == "faults:\n  one\n  two"
