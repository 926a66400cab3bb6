"""From the plan's data to a network."""

from torch import nn

from autospine.network.attention import AttentionSettings
from autospine.network.fusion import FusionSettings
from autospine.network.swin_unetr import AdaptiveSwinUNETR
from autospine.plan import Configuration, NetworkPlan, Plan
from autospine.types import Vector3


def build_network(plan: Plan, configuration: Configuration) -> nn.Module:
    """The configuration's network with fresh weights, for the plan's channels and labels."""
    return assemble(
        configuration.network, len(plan.channels), plan.labels.n_channels, configuration.spacing_mm
    )


def assemble(
    planned: NetworkPlan, in_channels: int, out_channels: int, spacing_mm: Vector3 = (1.0, 1.0, 1.0)
) -> nn.Module:
    """The planned network with fresh weights."""
    adaptive = planned.name == "adaptive_swin_unetr"
    fused = adaptive and len(planned.fusion_kernels) > 1
    stages = planned.adaptive_attention
    return AdaptiveSwinUNETR(
        in_channels,
        out_channels,
        feature_size=planned.feature_size,
        depths=planned.depths,
        num_heads=planned.num_heads,
        window_size=planned.window_sizes,
        strides=planned.strides,
        use_v2=planned.use_v2,
        fusion=FusionSettings(kernel_sizes=planned.fusion_kernels) if fused else None,
        attention=AttentionSettings(saliency=stages, temperature=stages)
        if adaptive and any(stages)
        else None,
        spacing_mm=spacing_mm,
    )
