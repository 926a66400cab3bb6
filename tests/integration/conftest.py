"""What the command line changes in a process, put back as other tests want it."""

import logging
from collections.abc import Iterator

import pytest


@pytest.fixture(autouse=True, scope="module")
def restored_loggers() -> Iterator[None]:
    """The command line sets up logging for the process."""
    loggers = [logging.getLogger(name) for name in ("autospine", "planners", "trainers")]
    before = [(logger.handlers, logger.level, logger.propagate) for logger in loggers]
    yield
    for logger, (handlers, level, propagate) in zip(loggers, before, strict=True):
        logger.handlers, logger.propagate = handlers, propagate
        logger.setLevel(level)


@pytest.fixture(autouse=True, scope="module")
def bare_environment() -> Iterator[None]:
    """No workspace but those that tests name."""
    with pytest.MonkeyPatch.context() as patch:
        for name in ("AUTOSPINE_WORKSPACE", "nnUNet_raw"):
            patch.delenv(name, raising=False)
        yield
