"""The protocol of an experiment, which is written before the first training and holds for all of them."""

from dataclasses import dataclass, fields
from math import ceil
from pathlib import Path
from typing import Annotated

from autospine.core.errors import TrainingError
from autospine.storage.file_names import folder_to_write
from autospine.storage.serialization import above, between, many, read_json, stored_as, write_json

PROTOCOL = "protocol.json"
FORMAT_VERSION = 1

MOST_EPOCHS = 10
"""Most epochs of a training that is limited by steps: points of its learning curve."""


@stored_as("the protocol of an experiment")
@dataclass(frozen=True, kw_only=True, slots=True)
class ExperimentProtocol:
    """Everything that all trainings of an experiment have in common."""

    format_version: int
    experiment: str
    """Name of the experiment."""

    dataset: str
    """Name of the dataset folder."""

    configuration: str
    """Name of the planned configuration that is changed."""

    designs: dict[str, str]
    """Digest of each variant's plan, by its name."""

    seeds: Annotated[tuple[Annotated[int, between(0, 2**63)], ...], many()]
    """Seeds of the first weights and of the patches; every variant is trained with each."""

    folds: Annotated[tuple[str, ...], many()]
    """Names of the folds that every variant is trained on."""

    steps: Annotated[int, between(1, 10**9)] | None
    """Optimiser steps of every training; None if the time is equal instead."""

    minutes: Annotated[float, above(0, 1e6)] | None
    """Minutes for the folds of one variant and seed together, validation included; None for equal steps."""

    @property
    def trainings(self) -> int:
        """Number of trainings, a fold being one."""
        return len(self.designs) * len(self.seeds) * len(self.folds)

    @property
    def epochs_and_iterations(self) -> tuple[int, int]:
        """Epochs, and steps in each, of trainings that are limited by steps.

        Raises:
            ValueError: If the time is limited instead.
        """
        if self.steps is None:
            raise ValueError("a protocol of equal minutes has no steps")
        epochs = min(MOST_EPOCHS, self.steps)
        return epochs, ceil(self.steps / epochs)

    @property
    def limit(self) -> str:
        """The limit of each training in words."""
        if self.steps is not None:
            epochs, iterations = self.epochs_and_iterations
            return f"equal steps: {epochs * iterations} each"
        return f"equal minutes: {self.minutes:.3g} for each variant and seed"


def read_protocol(folder: Path) -> ExperimentProtocol | None:
    """Read the protocol of an experiment that has begun; None if none has.

    Raises:
        FormatError: If the file is damaged.
    """
    path = folder / PROTOCOL
    return read_json(path, ExperimentProtocol) if path.is_file() else None


def settle_protocol(folder: Path, protocol: ExperimentProtocol) -> None:
    """Write the protocol of an experiment that begins, or check that it is that of the one that goes on.

    Args:
        folder: Folder of the experiment.
        protocol: The protocol as it is asked for now.

    Raises:
        TrainingError: If the trainings in the folder follow another one.
    """
    known = read_protocol(folder)
    if known is None:
        write_json(folder_to_write(folder) / PROTOCOL, protocol)
        return
    differing = [
        field.name
        for field in fields(protocol)
        if getattr(known, field.name) != getattr(protocol, field.name)
    ]
    if differing:
        raise TrainingError(
            f"expected the protocol of the trainings in {folder}, found other {', '.join(differing)}; give "
            "the options as then, or move that folder away to begin anew"
        )
