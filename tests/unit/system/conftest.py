"""Time that passes when it is told to, and loggers that are put back."""

import logging

import pytest

from autospine.system import log


class Clock:
    """Time that passes when it is told to."""

    def __init__(self) -> None:
        self.now = 100.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(log, "time", clock)
    return clock


@pytest.fixture
def loggers():
    """The package's loggers, put back as they were."""
    found = [logging.getLogger(name) for name in ("autospine", "planners", "trainers")]
    before = [(logger.handlers, logger.level, logger.propagate) for logger in found]
    yield found
    for logger, (handlers, level, propagate) in zip(found, before, strict=True):
        logger.handlers, logger.propagate = handlers, propagate
        logger.setLevel(level)
