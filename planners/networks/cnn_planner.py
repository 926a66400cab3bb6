"""The planner of the plain convolutional network at full resolution."""

from autospine.core.types import Shape3
from autospine.network.cnn3d_plan import CNNPlan
from planners import rules
from planners.networks.network_planner import NetworkPlanner
from planners.rationale import Note


class CNNPlanner(NetworkPlanner[CNNPlan]):
    """The width of the U-Nets, and dilations where they would halve."""

    @property
    def widths(self) -> tuple[int, ...]:
        """Width of the U-Nets on the same device."""
        return (16,) if isinstance(self.context.device, rules.CPU) else (rules.UNET_FEATURES,)

    def width_reason(self) -> str:
        """Return the reason for the width."""
        on_cpu = isinstance(self.context.device, rules.CPU)
        return super().width_reason() if on_cpu else "that of the U-Nets"

    def divisor(self, patch: Shape3) -> Shape3:
        """Return the few voxels by which patches grow; the network would take any size."""
        return rules.step((1, 1, 1), self.context.shape)

    def network(self, width: int, patch: Shape3) -> CNNPlan:
        """Return the network, which the patch does not change."""
        steps, _ = rules.dilations(self.context.spacing_mm, self.context.shape)
        return CNNPlan(
            name="cnn3d", features=width, dilations=steps, checkpointing=self.request.checkpointing
        )

    def notes(self, network: CNNPlan, width_reason: str) -> list[Note]:
        """Return the reasons for width and dilations."""
        _, why = rules.dilations(self.context.spacing_mm, self.context.shape)
        return [("features", network.features, width_reason), ("dilations", network.dilations, why)]
