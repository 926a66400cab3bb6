"""The network: Swin UNETR with multi-scale fusion and adaptive attention."""

from autospine.network.swin.attention import AttentionMaps, AttentionSettings
from autospine.network.swin.fusion import FusionSettings, FusionWeighting
from autospine.network.swin.swin_unetr import AdaptiveSwinUNETR
from autospine.network.weights import ImportReport, StackingOrder, load_monai, load_monai_file

__all__ = [
    "AdaptiveSwinUNETR",
    "AttentionMaps",
    "AttentionSettings",
    "FusionSettings",
    "FusionWeighting",
    "ImportReport",
    "StackingOrder",
    "load_monai",
    "load_monai_file",
]
