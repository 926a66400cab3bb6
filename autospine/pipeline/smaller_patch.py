"""A configuration with a smaller patch that its network takes: for measurements that need not be whole."""

from dataclasses import replace
from math import prod

import torch

from autospine.core.geometry import triple
from autospine.plan import Configuration, Plan, build_network


def with_smaller_patch(planned: Plan, configuration: Configuration, limit: int) -> Configuration:
    """Return the configuration with a smaller patch.

    The axis with the most multiples of the network's divisor is halved until the batch has at most `limit`
    voxels, or the network takes no smaller patch.
    """
    divisor, fixed = configuration.network.divisor, set[int]()
    while len(fixed) < 3:
        size = configuration.patch_size
        if prod(size) * configuration.training.batch_size <= limit:
            break
        axis = max({0, 1, 2} - fixed, key=lambda axis: size[axis] // divisor[axis])
        half = divisor[axis] * -(-size[axis] // (2 * divisor[axis]))
        smaller = triple(half if number == axis else n for number, n in enumerate(size))
        if half < size[axis] and _accepts(planned, replace(configuration, patch_size=smaller)):
            configuration = replace(configuration, patch_size=smaller)
        else:
            fixed.add(axis)
    return configuration


def _accepts(planned: Plan, configuration: Configuration) -> bool:
    """Return whether the configuration's network takes patches of its size; nothing is computed."""
    try:
        with torch.device("meta"):
            network = build_network(planned, configuration)
            network(torch.empty(1, len(planned.channels), *configuration.patch_size))
    except Exception:  # of windows that do not fit, or of other people's code
        return False
    return True
