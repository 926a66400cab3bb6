"""The planner of the U-Nets: plain, with a Transformer, with a residual encoder."""

from autospine.core.types import Shape3
from autospine.network.network_plan import total_stride
from autospine.network.unet_plans import ResEncPlan, UNetPlan, UNetTransformerPlan
from planners import rules
from planners.networks.network_planner import NetworkPlanner
from planners.rationale import Note


class UNetPlanner(NetworkPlanner[UNetPlan | ResEncPlan | UNetTransformerPlan]):
    """nnU-Net's rules: as many levels as the patch bears, channels doubled per level."""

    smallest = (2 * rules.SHORTEST_EDGE,) * 3

    @property
    def widths(self) -> tuple[int, ...]:
        """nnU-Net's width; on a CPU a smaller one, but for the residual encoder, whose presets fix it."""
        small = isinstance(self.context.device, rules.CPU) and self.request.network != "resenc_unet"
        return (16,) if small else (rules.UNET_FEATURES,)

    def width_reason(self) -> str:
        """Return the reason for the width."""
        return "nnU-Net's" if self.widths == (rules.UNET_FEATURES,) else super().width_reason()

    def divisor(self, patch: Shape3) -> Shape3:
        """Return the product of the strides that nnU-Net would take for the patch."""
        strides, _, _ = rules.unet_levels(self.context.spacing_mm, patch)
        return total_stride(strides)

    def network(self, width: int, patch: Shape3) -> UNetPlan | ResEncPlan | UNetTransformerPlan:
        """Return the network with as many levels as the patch bears."""
        strides, kernels, _ = rules.unet_levels(self.context.spacing_mm, patch)
        features = rules.unet_features(width, len(strides))
        checkpointing = self.request.checkpointing
        if self.request.network == "resenc_unet":
            return ResEncPlan(
                name="resenc_unet",
                features=features,
                strides=strides,
                kernels=kernels,
                blocks=rules.resenc_blocks(len(strides)),
                checkpointing=checkpointing,
            )
        if self.request.network == "unet3d_transformer":
            return UNetTransformerPlan(
                name="unet3d_transformer",
                features=features,
                strides=strides,
                kernels=kernels,
                layers=rules.TRANSFORMER_LAYERS,
                heads=rules.transformer_heads(features[-1]),
                checkpointing=checkpointing,
            )
        return UNetPlan(
            name="unet3d",
            features=features,
            strides=strides,
            kernels=kernels,
            checkpointing=checkpointing,
        )

    def notes(self, network: UNetPlan | ResEncPlan | UNetTransformerPlan, width_reason: str) -> list[Note]:
        """Return the reasons for strides, kernels and width, and for what the kind adds."""
        notes: list[Note] = [
            ("strides", network.strides, rules.unet_levels(self.context.spacing_mm, (1, 1, 1))[2]),
            ("kernels", network.kernels, "nnU-Net's: 3 along the axes finer than twice the finest, else 1"),
            ("features", network.features, f"{width_reason}; doubled per level up to {rules.MOST_FEATURES}"),
        ]
        if isinstance(network, ResEncPlan):
            notes.append(("blocks", network.blocks, "nnU-Net's ResEnc presets"))
        if isinstance(network, UNetTransformerPlan):
            value = f"{network.layers} layers of {network.heads} heads"
            notes.append(("transformer", value, "TransBTS' depth, heads of at least 64 channels"))
        return notes
