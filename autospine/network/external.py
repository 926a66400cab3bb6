"""Networks of other distributions, found by the entry points `autospine.networks`.

An entry point names a callable that is called as

    make(in_channels=1, out_channels=5, spacing_mm=(1.0, 0.8, 0.8), patch_size=(96, 96, 64), **settings)

and returns an `nn.Module` from images (B, in_channels, S, P, L) to logits (B, out_channels, S, P, L). Its
attribute `divisor`, three numbers, says what the axes of an image must be multiples of; without one, any size
will do. It must not depend on `patch_size`. Parameters are made on the default device, so that the planner
can build the network on the meta device, without memory.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.metadata import EntryPoint, entry_points
from typing import TYPE_CHECKING

from autospine.core.errors import PlanError
from autospine.core.types import Shape3, Vector3

if TYPE_CHECKING:
    from torch import nn

GROUP = "autospine.networks"

Setting = bool | int | float | str
"""Value of an argument that a plan keeps for a network of another distribution."""


@dataclass(frozen=True, slots=True)
class ExternalNetwork:
    """An entry point that can be called."""

    entry: EntryPoint

    @property
    def distribution(self) -> str:
        """Name and version of the distribution that it comes from."""
        found = self.entry.dist
        return "unknown" if found is None else f"{found.name} {found.version}"

    def make(
        self,
        in_channels: int,
        out_channels: int,
        spacing_mm: Vector3,
        patch_size: Shape3,
        settings: Mapping[str, object],
    ) -> "nn.Module":
        """Return the network with fresh weights.

        Raises:
            PlanError: If it cannot be loaded or made; names the distribution.
        """
        from torch import nn

        factory = self.load()
        try:
            network = factory(
                in_channels=in_channels,
                out_channels=out_channels,
                spacing_mm=spacing_mm,
                patch_size=patch_size,
                **settings,
            )
        except Exception as error:  # whatever other people's code raises
            raise self._broken(error) from error
        if not isinstance(network, nn.Module):
            raise PlanError(
                f"expected a torch module from {self.entry.value} of the distribution {self.distribution}, "
                f"found {type(network).__name__}; mend or uninstall it, or choose another network"
            )
        return network

    def load(self) -> Callable[..., object]:
        """Return what the entry point names.

        Raises:
            PlanError: If it cannot be imported; names the distribution.
        """
        try:
            loaded: Callable[..., object] = self.entry.load()
        except Exception as error:  # whatever other people's code raises
            raise self._broken(error) from error
        return loaded

    def _broken(self, error: Exception) -> PlanError:
        return PlanError(
            f"expected the distribution {self.distribution} to make the network {self.entry.name!r} "
            f"({self.entry.value}), found {type(error).__name__}: {error}; mend or uninstall it, or choose "
            "another network"
        )


def external_names() -> tuple[str, ...]:
    """Names of the networks that other installed distributions offer."""
    return tuple(sorted({entry.name for entry in entry_points(group=GROUP)}))


def find_external(name: str) -> ExternalNetwork:
    """The network of another distribution of this name.

    Raises:
        PlanError: If none is installed, or several are.
    """
    found = [ExternalNetwork(entry) for entry in entry_points(group=GROUP, name=name)]
    if len(found) != 1:
        listed = ", ".join(network.distribution for network in found) or "none"
        raise PlanError(
            f"expected one installed distribution with the network {name!r} among its entry points {GROUP}, "
            f"found {listed}; install one, uninstall the others, or choose another network"
        )
    return found[0]


def stated_divisor(network: "nn.Module", distribution: str) -> Shape3:
    """The network's `divisor`, (1, 1, 1) if it has none.

    Raises:
        PlanError: If it is not three positive numbers.
    """
    stated = getattr(network, "divisor", (1, 1, 1))
    try:
        s, p, left = (int(n) for n in stated)
    except (TypeError, ValueError):
        s = p = left = 0
    if min(s, p, left) < 1:
        raise PlanError(
            f"expected three positive numbers as the divisor of the network of {distribution}, found "
            f"{stated!r}; mend or uninstall it, or choose another network"
        )
    return s, p, left
