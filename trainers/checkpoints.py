"""The checkpoints of a fold in training: the newest, and the one before it."""

from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch

from autospine.core.errors import FormatError, VersionError
from autospine.storage.tensors import load_facts, load_tensors, save_tensors
from autospine.system.log import get_logger

logger = get_logger(__name__)

CHECKPOINT = "checkpoint.safetensors"
PREVIOUS = "checkpoint_previous.safetensors"
ARRIVING = "checkpoint_arriving.safetensors"
"""A complete checkpoint that has not taken the newest one's place yet."""


DAMAGED = ".damaged"
"""Ending of checkpoints that could not be read."""


class Checkpoints:
    """At every moment at least one complete checkpoint lies in the folder, once there was one."""

    def __init__(self, folder: Path) -> None:
        self._arriving, self._newest, self._previous = (
            folder / name for name in (ARRIVING, CHECKPOINT, PREVIOUS)
        )

    def save(self, tensors: Mapping[str, torch.Tensor], facts: Mapping[str, Any]) -> None:
        """Write a checkpoint and keep the one before it.

        Raises:
            WorkspaceError: if it cannot be written; those before it stay.
        """
        save_tensors(self._arriving, tensors, facts)
        if self._newest.exists():
            self._newest.replace(self._previous)
        self._arriving.replace(self._newest)

    def load(self) -> tuple[dict[str, torch.Tensor], dict[str, Any], Path] | None:
        """The newest sound checkpoint with its facts and path; None if there is none at all.

        Damaged ones are renamed as soon as an earlier one has proved sound.

        Raises:
            FormatError: if there are checkpoints and all are damaged, or one is of another version.
        """
        damaged: dict[Path, FormatError] = {}
        for path in (self._arriving, self._newest, self._previous):
            if not path.is_file():
                continue
            try:
                tensors, facts = load_tensors(path)
            except VersionError:
                raise
            except FormatError as error:
                damaged[path] = error
                continue
            for other in damaged:
                logger.warning("%s is damaged; going on from the checkpoint before it", other)
                other.replace(other.with_name(f"{other.name}{DAMAGED}"))
            return tensors, facts, path
        if damaged:
            names = ", ".join(path.name for path in damaged)
            raise FormatError(
                f"expected a sound checkpoint in {self._newest.parent}, found {names} damaged; "
                "move that folder away to train the fold anew"
            )
        return None

    def facts(self) -> dict[str, Any] | None:
        """Facts of the newest checkpoint by its header alone; None if there is none that can be read."""
        for path in (self._arriving, self._newest, self._previous):
            with suppress(FormatError):  # absent, or damaged
                return load_facts(path)
        return None

    def remove_finished(self, extensions: int) -> None:
        """Remove what a process has left that was killed just after it had written the finished weights.

        Args:
            extensions: of those weights; checkpoints of a later extension stay.
        """
        reached = []
        for path in (self._arriving, self._newest, self._previous):
            with suppress(FormatError):  # absent, or damaged
                reached.append(int(load_facts(path).get("extensions", 0)))
        if reached and max(reached) <= extensions:
            self.remove()

    def remove(self) -> None:
        """Remove all checkpoints, once training is complete."""
        for path in (self._arriving, self._newest, self._previous):
            path.unlink(missing_ok=True)
            path.with_name(f"{path.name}{DAMAGED}").unlink(missing_ok=True)
