"""The networks: Swin UNETR with multi-scale fusion and adaptive attention, and those to compare it with.

The names below are imported when they are asked for, so that the modules of plans in this package load
without torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from autospine.network.swin.attention import AttentionMaps
    from autospine.network.swin.swin_settings import AttentionBounds, AttentionSettings, FusionSettings
    from autospine.network.swin.swin_unetr import AdaptiveSwinUNETR
    from autospine.network.weights import ImportReport, StackingOrder, load_monai, load_monai_file

__all__ = [
    "AdaptiveSwinUNETR",
    "AttentionBounds",
    "AttentionMaps",
    "AttentionSettings",
    "FusionSettings",
    "ImportReport",
    "StackingOrder",
    "load_monai",
    "load_monai_file",
]

_HOMES = {
    "AdaptiveSwinUNETR": "swin.swin_unetr",
    "AttentionBounds": "swin.swin_settings",
    "AttentionMaps": "swin.attention",
    "AttentionSettings": "swin.swin_settings",
    "FusionSettings": "swin.swin_settings",
    "ImportReport": "weights",
    "StackingOrder": "weights",
    "load_monai": "weights",
    "load_monai_file": "weights",
}
"""Module of this package that each name comes from."""


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
