"""Messages of folds that train side by side, as the parent shows them."""

import logging

import pytest

from trainers import fold_messages
from trainers.fold_messages import FoldMessage, FoldMessages, MessageHandler


def warned(text: str, level: int = logging.WARNING) -> FoldMessage:
    return FoldMessage(logger="trainers.learner", level=level, text=text)


def test_equal_messages_of_several_folds_are_one(caplog):
    messages = FoldMessages("Dataset007_Small, fullres, ")
    messages.take("0", warned("fold 0: the memory is full"))
    messages.take("1", warned("Dataset007_Small, fullres, fold 1: the memory is full"))
    messages.take("1", warned("Dataset007_Small, fullres, fold 1: the memory is full"))
    messages.take("10", warned("the memory is full"))
    messages.take("0", warned("cuDNN is old"))
    messages.take("0", warned("results/fold_0 is kept; fold 0 goes on, unlike fold 01"))
    messages.show(all_now=True)
    assert caplog.messages == [
        "folds 0, 1, 10: the memory is full",
        "fold 0: cuDNN is old",
        "results/fold_0 is kept; fold 0 goes on, unlike fold 01",
    ]
    assert {record.name for record in caplog.records} == {"trainers.learner"}
    messages.show(all_now=True)
    assert len(caplog.messages) == 3


def test_messages_of_another_level_stay_apart_and_those_below_the_parents_are_not_shown(caplog):
    caplog.set_level("INFO")
    messages = FoldMessages()
    for level in (logging.DEBUG, logging.INFO, logging.WARNING):
        messages.take("0", warned("says %s", level))
    messages.show(all_now=True)
    assert [record.levelname for record in caplog.records] == ["INFO", "WARNING"]
    assert caplog.messages == ["fold 0: says %s"] * 2


@pytest.mark.parametrize(("seconds", "shown"), [(1000.0, 0), (0.0, 1)])
def test_a_message_waits_a_moment_for_the_same_one_of_other_folds(caplog, monkeypatch, seconds, shown):
    monkeypatch.setattr(fold_messages, "JOIN_SECONDS", seconds)
    messages = FoldMessages()
    messages.take("0", warned("the memory is full"))
    messages.show()
    assert len(caplog.messages) == shown


def test_log_records_become_messages_with_their_arguments_and_traceback():
    taken: list[FoldMessage] = []
    logger = logging.Logger("trainers.some")
    logger.addHandler(MessageHandler(taken.append))
    logger.info("step %d of %s", 3, "fold 0")
    try:
        raise KeyError("absent")
    except KeyError:
        logger.exception("failed")
    assert taken[0] == FoldMessage(logger="trainers.some", level=logging.INFO, text="step 3 of fold 0")
    assert taken[1].text.startswith("failed\n")
    assert "KeyError: 'absent'" in taken[1].text
