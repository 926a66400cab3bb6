"""From the plan's data to a network."""

from dataclasses import fields
from typing import Any, Literal

from torch import nn

from autospine.core.types import Shape3, Vector3
from autospine.network.cnn3d import CNN3D
from autospine.network.external import find_external
from autospine.network.resenc_unet import ResEncUNet
from autospine.network.swin.attention import AttentionSettings
from autospine.network.swin.fusion import FusionSettings
from autospine.network.swin.stages import AttentionKind
from autospine.network.swin.swin_unetr import AdaptiveSwinUNETR
from autospine.network.unet3d import UNet3D
from autospine.network.unet3d_transformer import UNet3DTransformer
from autospine.plan import (
    AttentionPlan,
    CNNPlan,
    Configuration,
    FusionPlan,
    NetworkPlan,
    Plan,
    ResEncPlan,
    SwinPlan,
    UNetPlan,
    UNetTransformerPlan,
)


def build_network(plan: Plan, configuration: Configuration) -> nn.Module:
    """The configuration's network with fresh weights, for the plan's channels and labels.

    Raises:
        PlanError: if the plan's numbers do not fit each other, or a network of another distribution is not
            installed.
    """
    return assemble(
        configuration.network,
        len(plan.channels),
        plan.labels.n_channels,
        spacing_mm=configuration.spacing_mm,
        patch_size=configuration.patch_size,
    )


def assemble(
    planned: NetworkPlan, in_channels: int, out_channels: int, *, spacing_mm: Vector3, patch_size: Shape3
) -> nn.Module:
    """The planned network with fresh weights.

    Raises:
        PlanError: as `build_network`.
    """
    match planned:
        case SwinPlan():
            return _swin(planned, in_channels, out_channels, spacing_mm)
        case UNetPlan():
            return UNet3D(in_channels, out_channels, **_settings(planned))
        case ResEncPlan():
            return ResEncUNet(in_channels, out_channels, **_settings(planned))
        case UNetTransformerPlan():
            return UNet3DTransformer(in_channels, out_channels, **_settings(planned))
        case CNNPlan():
            return CNN3D(in_channels, out_channels, **_settings(planned))
    network = find_external(planned.entry_point)
    return network.make(in_channels, out_channels, spacing_mm, patch_size, planned.settings)


def _settings(planned: UNetPlan | ResEncPlan | UNetTransformerPlan | CNNPlan) -> dict[str, Any]:
    """What the plan says under the names of the network's own arguments."""
    return {field.name: getattr(planned, field.name) for field in fields(planned) if field.name != "name"}


def _swin(planned: SwinPlan, in_channels: int, out_channels: int, spacing_mm: Vector3) -> nn.Module:
    return AdaptiveSwinUNETR(
        in_channels,
        out_channels,
        feature_size=planned.feature_size,
        depths=planned.depths,
        num_heads=planned.num_heads,
        window_size=planned.window_sizes,
        strides=planned.strides,
        use_v2=planned.use_v2,
        fusion=_fusion(planned.fusion),
        attention=_attention(planned.attention),
        spacing_mm=spacing_mm,
        checkpointing=planned.checkpointing,
    )


def _fusion(planned: FusionPlan | None) -> FusionSettings | None:
    if planned is None:
        return None
    return FusionSettings(
        kernel_sizes=planned.kernels, weighting=planned.weighting, placement=planned.placement
    )


def _attention(planned: AttentionPlan | Literal["plain", "identity"]) -> AttentionKind:
    if isinstance(planned, AttentionPlan):
        return AttentionSettings(saliency=planned.saliency, temperature=planned.temperature)
    return None if planned == "plain" else "identity"
