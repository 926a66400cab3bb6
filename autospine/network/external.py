"""Networks of other distributions, found by the entry points `autospine.networks`.

An entry point names a callable that is called as

    make(in_channels=1, out_channels=5, spacing_mm=(1.0, 0.8, 0.8), patch_size=(96, 96, 64), **settings)

and returns an `nn.Module` from images (B, in_channels, S, P, L) to logits (B, out_channels, S, P, L). Its
attribute `divisor`, three numbers, says what the axes of an image must be multiples of; without one, any size
will do. It must not depend on `patch_size`. Parameters are made on the default device, so that the planner
can build the network on the meta device, without memory.

An entry point may also name a module or another object with an attribute `make`. In either case these
optional attributes of what it names take part in planning:

    plan(facts) -> settings     the settings for a dataset, from `NetworkFacts`; none by default
    memory(in_channels=..., out_channels=..., spacing_mm=..., patch_size=..., batch_size=..., value_bytes=...,
           **settings)          `StatedMemory` as a mapping; by default a training step is traced

No module of another distribution is imported before its network is asked for, so that one that is broken
disturbs no other network.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

from autospine.core.errors import PlanError
from autospine.core.geometry import triple
from autospine.core.plugins import Plugin, find_plugin, let_interrupts_pass, plugin_names
from autospine.core.types import Shape3, Vector3

if TYPE_CHECKING:
    from torch import nn

GROUP = "autospine.networks"

Setting = bool | int | float | str
"""Value of an argument that a plan keeps for a network of another distribution."""


@dataclass(frozen=True, kw_only=True, slots=True)
class NetworkFacts:
    """Facts about dataset and device from which a network may plan its own settings."""

    spacing_mm: Vector3
    """Voxel spacing (S, P, L) that cases are resampled to."""

    shape: Shape3
    """Voxels (S, P, L) of the median case at that spacing."""

    thicknesses_mm: tuple[float, ...]
    """Thickness of each class that occurs."""

    in_channels: int
    out_channels: int
    """Channels of the logits, background included."""

    gpu: bool
    """Whether the sizes are for a GPU."""


@dataclass(frozen=True, kw_only=True, slots=True)
class StatedMemory:
    """Bytes that the tensors of a network take, by its own statement; parameters are counted besides."""

    kept: int
    """At the end of a forward pass of training: what the backward pass needs, and the logits."""

    backward: int
    """Beyond `kept` at the peak of the backward pass."""

    tile: int
    """At the peak of a forward pass without gradients."""


@dataclass(frozen=True, slots=True)
class ExternalNetwork:
    """A network of another distribution."""

    plugin: Plugin

    @property
    def distribution(self) -> str:
        """Name and version of the distribution that it comes from."""
        return self.plugin.distribution

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

        network = self._call(
            self.load(),
            in_channels=in_channels,
            out_channels=out_channels,
            spacing_mm=spacing_mm,
            patch_size=patch_size,
            **settings,
        )
        if not isinstance(network, nn.Module):
            raise PlanError(
                f"expected a torch module from {self.plugin.description}, found {type(network).__name__}; "
                f"{self.plugin.remedy}"
            )
        return network

    def divisor(
        self,
        in_channels: int,
        out_channels: int,
        spacing_mm: Vector3,
        patch_size: Shape3,
        settings: Mapping[str, object],
    ) -> Shape3:
        """Return the divisor that the network states; it is built on the meta device for that.

        Raises:
            PlanError: As `make`, or if the divisor is not three positive numbers.
        """
        import torch

        with torch.device("meta"):
            network = self.make(in_channels, out_channels, spacing_mm, patch_size, settings)
        return stated_divisor(network, self.distribution)

    def plan(self, facts: NetworkFacts) -> dict[str, Setting]:
        """Return the settings that the network plans for these facts; none where it plans nothing.

        Raises:
            PlanError: If its `plan` fails or returns something else; names the distribution.
        """
        plan = self._hook("plan")
        if plan is None:
            return {}
        settings = self._call(plan, facts)
        known = isinstance(settings, Mapping) and all(
            isinstance(name, str) and isinstance(value, Setting) for name, value in settings.items()
        )
        if not known:
            raise PlanError(
                "expected a mapping of names to numbers, texts and switches from the `plan` of "
                f"{self.plugin.description}, found {settings!r}; {self.plugin.remedy}"
            )
        return dict(settings)

    def memory(
        self,
        in_channels: int,
        out_channels: int,
        spacing_mm: Vector3,
        patch_size: Shape3,
        batch_size: int,
        value_bytes: int,
        settings: Mapping[str, object],
    ) -> StatedMemory | None:
        """Return the memory that the network states, or None where it is to be traced.

        Args:
            in_channels: Channels of the image.
            out_channels: Channels of the logits.
            spacing_mm: Voxel spacing (S, P, L).
            patch_size: Voxels (S, P, L) of a patch or tile.
            batch_size: Patches per step.
            value_bytes: Bytes of one activation.
            settings: As in the plan.

        Raises:
            PlanError: If its `memory` fails or returns something else; names the distribution.
        """
        memory = self._hook("memory")
        if memory is None:
            return None
        stated = self._call(
            memory,
            in_channels=in_channels,
            out_channels=out_channels,
            spacing_mm=spacing_mm,
            patch_size=patch_size,
            batch_size=batch_size,
            value_bytes=value_bytes,
            **settings,
        )
        names = {field.name for field in fields(StatedMemory)}
        if not (
            isinstance(stated, Mapping)
            and set(stated) == names
            and all(isinstance(value, int | float) and value >= 0 for value in stated.values())
        ):
            raise PlanError(
                f"expected bytes for {', '.join(sorted(names))} from the `memory` of "
                f"{self.plugin.description}, found {stated!r}; {self.plugin.remedy}"
            )
        return StatedMemory(**{name: round(value) for name, value in stated.items()})

    def check_output(self, output: object, shape: Sequence[int]) -> None:
        """Refuse an output that is not logits of the expected shape.

        Args:
            output: Output of the network.
            shape: Expected shape (B, out_channels, S, P, L).

        Raises:
            PlanError: If the output is no tensor, or one of another shape; names the distribution.
        """
        found = getattr(output, "shape", None)
        if found is not None and tuple(found) == tuple(shape):
            return
        shown = type(output).__name__ if found is None else f"a tensor of shape {tuple(found)}"
        raise PlanError(
            f"expected {self.plugin.description} to return logits of shape {tuple(shape)}, found {shown}; "
            f"{self.plugin.remedy}"
        )

    def load(self) -> Callable[..., object]:
        """Return the callable that makes the network.

        Raises:
            PlanError: If it cannot be imported or is missing; names the distribution.
        """
        loaded = self.plugin.load()
        make = getattr(loaded, "make", loaded)
        if not callable(make):
            raise PlanError(
                f"expected {self.plugin.description} to be a callable, or an object with one called make, "
                f"found {type(loaded).__name__}; {self.plugin.remedy}"
            )
        made: Callable[..., object] = make
        return made

    def _hook(self, name: str) -> Any:
        """Return an optional attribute of what the entry point names, or None.

        A class of torch modules is the network itself: its attributes are its own, whatever they are called.
        """
        from torch import nn

        loaded = self.plugin.load()
        network = isinstance(loaded, type) and issubclass(loaded, nn.Module)
        return None if network else getattr(loaded, name, None)

    def _call(self, function: Callable[..., Any], *arguments: Any, **keywords: Any) -> Any:
        try:
            return function(*arguments, **keywords)
        except BaseException as error:  # whatever other people's code raises
            let_interrupts_pass(error)
            raise self.plugin.broken("cannot be made:", error) from error


def external_names() -> tuple[str, ...]:
    """Return the names of the networks that other installed distributions offer."""
    return plugin_names(GROUP)


def find_external(name: str) -> ExternalNetwork:
    """Return the network of another distribution of this name.

    Raises:
        PlanError: If none is installed, or several are.
    """
    return ExternalNetwork(find_plugin(GROUP, name, kind="network", error=PlanError))


def stated_divisor(network: "nn.Module", distribution: str) -> Shape3:
    """Return the network's `divisor`, (1, 1, 1) if it has none.

    Raises:
        PlanError: If it is not three positive numbers.
    """
    stated = getattr(network, "divisor", (1, 1, 1))
    try:
        divisor = triple(int(n) for n in stated)
    except (TypeError, ValueError):
        divisor = (0, 0, 0)
    if min(divisor) < 1:
        raise PlanError(
            f"expected three positive numbers as the divisor of the network of {distribution}, found "
            f"{stated!r}; mend or uninstall it, or choose another network"
        )
    return divisor
