"""What a configuration costs, as `costs.json` keeps it: hours of training, and what its voxels lose."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated

from autospine.core.errors import FormatError
from autospine.plan import Plan
from autospine.storage.serialization import many, read_json, stored_as, write_json
from autospine.storage.workspace import DatasetLocation

COSTS = "costs.json"
FORMAT_VERSION = 1


@dataclass(frozen=True, kw_only=True, slots=True)
class ConfigurationCost:
    """The cost of one configuration."""

    key: str
    """Digest of what was measured: device, dataset and configuration."""

    name: str
    """Name of the configuration."""

    hours: float | None
    """Hours of training and validation of one fold that has the device to itself; None if a step failed."""

    labels_dice: float | None
    """Mean Dice, over classes and cases, of labels that were resampled to these voxels and back: what a
    network without fault would reach. None if no class occurs."""


@stored_as("the costs of a plan", largest=2**20)
@dataclass(frozen=True, kw_only=True, slots=True)
class _Costs:
    """The content of `costs.json`."""

    format_version: int
    configurations: Annotated[tuple[ConfigurationCost, ...], many()]


def known_costs(location: DatasetLocation, planned: Plan) -> dict[str, ConfigurationCost]:
    """Return the costs that were measured last, by the names of the plan's configurations."""
    known = {cost.name: cost for cost in read_costs(location).values()}
    return {each.name: known[each.name] for each in planned.configurations if each.name in known}


def read_costs(location: DatasetLocation) -> dict[str, ConfigurationCost]:
    """Read the costs by their keys; there are none if the file is absent, damaged or of another version."""
    try:
        kept = read_json(location.preprocessed / COSTS, _Costs)
    except FormatError:
        return {}
    return {cost.key: cost for cost in kept.configurations} if kept.format_version == FORMAT_VERSION else {}


def write_costs(location: DatasetLocation, costs: Mapping[str, ConfigurationCost]) -> None:
    """Write costs by their keys, in the order of these."""
    content = _Costs(format_version=FORMAT_VERSION, configurations=tuple(costs[key] for key in sorted(costs)))
    write_json(location.preprocessed / COSTS, content)
