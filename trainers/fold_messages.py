"""Messages of folds that train side by side: sent by their processes, joined and shown by the parent."""

import logging
import re
import time
from collections.abc import Callable
from dataclasses import dataclass, field

JOIN_SECONDS = 3.0
"""Time that a message waits for the same one of other folds."""


@dataclass(frozen=True, kw_only=True, slots=True)
class FoldMessage:
    """A log record of the process of a fold."""

    logger: str
    """Name of the logger."""

    level: int
    text: str


class MessageHandler(logging.Handler):
    """Hands log records on as messages.

    Args:
        take: Takes each message.
    """

    def __init__(self, take: Callable[[FoldMessage], None]) -> None:
        super().__init__()
        self._take = take

    def emit(self, record: logging.LogRecord) -> None:
        """Hand on a record with its traceback, if it has one."""
        self._take(FoldMessage(logger=record.name, level=record.levelno, text=self.format(record)))


@dataclass(kw_only=True, slots=True)
class _Waiting:
    """A message that waits for the same one of other folds."""

    message: FoldMessage
    """The first one; its text has a place for the folds."""

    since: float
    """Value of `time.monotonic()` at which it came."""

    folds: list[str]
    """Names of the folds that it came from, each once."""


@dataclass(slots=True)
class FoldMessages:
    """Messages of several folds, which the loggers of this process show: equal ones together, once.

    A message names its fold in the beginning, or in what it says of it ("fold 0 resumes after epoch 7"); one
    that does not is given the name.
    """

    title: str = ""
    """Words before the name of the fold in some messages, which are left out."""

    _waiting: dict[tuple[int, str], _Waiting] = field(init=False, default_factory=dict)

    def take(self, fold: str, message: FoldMessage) -> None:
        """Take a message of a fold."""
        text = message.text.removeprefix(self.title)
        named = re.compile(rf"\bfold {re.escape(fold)}\b")
        text = text if named.search(text) else f"fold {fold}: {text}"
        parts = named.split(text, maxsplit=1)
        text = "\0".join(part.replace("\0", "") for part in parts)
        new = _Waiting(
            message=FoldMessage(logger=message.logger, level=message.level, text=text),
            since=time.monotonic(),
            folds=[],
        )
        waiting = self._waiting.setdefault((message.level, text), new)
        if fold not in waiting.folds:
            waiting.folds.append(fold)

    def show(self, *, all_now: bool = False) -> None:
        """Log what has waited for `JOIN_SECONDS`, or all there is."""
        now = time.monotonic()
        for key, waiting in tuple(self._waiting.items()):
            if all_now or now - waiting.since >= JOIN_SECONDS:
                del self._waiting[key]
                said = waiting.message
                text = said.text.replace(
                    "\0", f"fold{'s' * (len(waiting.folds) > 1)} {', '.join(waiting.folds)}"
                )
                logging.getLogger(said.logger).log(said.level, "%s", text)
