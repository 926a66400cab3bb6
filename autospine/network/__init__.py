"""The network: Swin UNETR with multi-scale fusion and adaptive attention."""

from autospine.network.allocation import reuse_freed_memory
from autospine.network.attention import AttentionMaps, AttentionSettings
from autospine.network.fusion import FusionSettings, FusionWeighting
from autospine.network.swin_unetr import AdaptiveSwinUNETR

__all__ = [
    "AdaptiveSwinUNETR",
    "AttentionMaps",
    "AttentionSettings",
    "FusionSettings",
    "FusionWeighting",
    "reuse_freed_memory",
]
