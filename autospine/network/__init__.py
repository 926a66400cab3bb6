"""The network: Swin UNETR with multi-scale fusion and adaptive attention."""

from autospine.network.attention import AttentionMaps, AttentionSettings
from autospine.network.fusion import FusionSettings, FusionWeighting
from autospine.network.swin_unetr import AdaptiveSwinUNETR
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
