"""Errors in words, where one case fails and the others go on."""

import sys

from autospine.core.errors import AutospineError
from autospine.system.log import get_logger

logger = get_logger(__name__)

TELLING = (AutospineError, RuntimeError, MemoryError, OSError)
"""Errors whose text says what happened; that of others, such as a KeyError, may be no more than a number."""


def describe_failure(error: Exception) -> str:
    """Return what went wrong, in one sentence; where in the code it did is logged for `--debug`."""
    logger.debug("where it went wrong:", exc_info=error)
    name, text = type(error).__name__, str(error)
    if full := full_memory(error):
        return full
    if not text:
        return name
    return text if isinstance(error, TELLING) else f"{name}: {text}"


def full_memory(error: BaseException) -> str | None:
    """Return that memory was full and what to do, where that is the error; PyTorch is not imported for it."""
    if "torch" not in sys.modules:
        return None

    from autospine.system.allocation import describe_full_memory

    return describe_full_memory(error)
