"""The planner of networks of other distributions."""

from collections.abc import Mapping
from functools import cached_property

from autospine.core.errors import PlanError
from autospine.core.geometry import triple
from autospine.core.types import Shape3
from autospine.network.external import ExternalNetwork, NetworkFacts, Setting, find_external
from autospine.network.external_plan import ExternalPlan
from planners import rules
from planners.networks.network_planner import NetworkPlanner
from planners.rationale import Note

SHAPE_MULTIPLE = 32
"""The median case is rounded up to a multiple of this for the patch that the network is first built for."""


class ExternalPlanner(NetworkPlanner[ExternalPlan]):
    """The network states its divisor, and may plan its own settings."""

    widths = (0,)

    @cached_property
    def external(self) -> ExternalNetwork:
        """The entry point."""
        return find_external(self.request.network)

    @cached_property
    def planned(self) -> ExternalPlan:
        """The plan as the network states it; it is built on the meta device for that."""
        context = self.context
        settings = self.external.plan(
            NetworkFacts(
                spacing_mm=context.spacing_mm,
                shape=context.shape,
                thicknesses_mm=tuple(context.thicknesses_mm),
                in_channels=context.in_channels,
                out_channels=context.out_channels,
                gpu=isinstance(context.device, rules.GPU),
            )
        )
        return ExternalPlan(
            name="external",
            entry_point=self.request.network,
            distribution=self.external.distribution,
            settings=settings,
            divisor=self._divisor(settings),
        )

    def _divisor(self, settings: Mapping[str, Setting]) -> Shape3:
        """Return the divisor that the network states; it is built for two patches to see that it stays.

        Raises:
            PlanError: If the divisor depends on the patch, or the network cannot be built.
        """
        context, external = self.context, self.external
        small = triple(SHAPE_MULTIPLE * -(-n // SHAPE_MULTIPLE) for n in context.shape)
        first, second = (
            external.divisor(context.in_channels, context.out_channels, context.spacing_mm, patch, settings)
            for patch in (small, triple(n + SHAPE_MULTIPLE for n in small))
        )
        if first != second:
            plugin = external.plugin
            raise PlanError(
                f"expected the same divisor for every patch from {plugin.description}, found {first} and "
                f"{second}; {plugin.remedy}"
            )
        return first

    def divisor(self, patch: Shape3) -> Shape3:
        """Return a multiple of the divisor that the network states, of a few voxels."""
        return rules.step(self.planned.divisor, self.context.shape)

    def network(self, width: int, patch: Shape3) -> ExternalPlan:
        """Return the plan of the network, which is made for the patch when it is built."""
        return self.planned

    def notes(self, network: ExternalPlan, width_reason: str) -> list[Note]:
        """Return where the network, its divisor and its settings come from."""
        notes: list[Note] = [
            ("network", self.request.network, f"of the distribution {network.distribution}"),
            ("divisor", network.divisor, "as the network states"),
        ]
        if network.settings:
            value = ", ".join(f"{name} {value}" for name, value in network.settings.items())
            notes.append(("settings", value, "as the network plans them"))
        return notes
