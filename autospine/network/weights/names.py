"""Names of tensors in AutoSpine's Swin UNETR, in MONAI's, and in published files."""

import re
from collections.abc import Iterable
from typing import Literal

Layout = Literal["SwinUNETR", "swin_vit", "self-supervised", "autoencoder"]
"""MONAI's own; that of its first versions; `model_swinvit.pt`; `ssl_pretrained_weights.pth`."""

WRAPPERS = ("module.", "backbone.", "model.", "network.", "_orig_mod.")
"""Prefixes that wrappers put before the names: data parallel training, larger modules, torch.compile."""

ENCODER = "swinViT."

_BARE = re.compile(r"patch_embed\.|layers\dc?\.")
_BLOCK = {
    "norm1": "norm1",
    "attention.bias_table": "attn.relative_position_bias_table",
    "attention.qkv": "attn.qkv",
    "attention.projection": "attn.proj",
    "norm2": "norm2",
    "linear1": "mlp.linear1",
    "linear2": "mlp.linear2",
}


def monai_name(name: str) -> str | None:
    """Return what a parameter of AdaptiveSwinUNETR is called in MONAI's SwinUNETR; None for our own parts."""
    part, _, rest = name.partition(".")
    place, _, inner = rest.partition(".")
    if part == "embedding" and rest in ("weight", "bias"):
        return f"{ENCODER}patch_embed.proj.{rest}"
    if part == "stages":
        return _in_stage(int(place) + 1, inner)
    if part == "encoders":
        return f"encoder{int(place) + 1}.layer.{_conv(inner)}"
    if part == "bottleneck":
        return f"encoder10.layer.{_conv(rest)}"
    if part == "decoders" and inner == "transposed":
        return f"decoder{int(place) + 1}.transp_conv.conv.weight"
    if part == "decoders":
        return f"decoder{int(place) + 1}.conv_block.{_conv(inner.removeprefix('block.'))}"
    return f"out.conv.conv.{rest}" if part == "head" else None


def _in_stage(number: int, name: str) -> str | None:
    part, _, rest = name.partition(".")
    if part == "residual":
        return f"{ENCODER}layers{number}c.0.layer.{_conv(rest)}"
    if part == "merging":
        return f"{ENCODER}layers{number}.0.downsample.{rest}"
    index, _, inner = rest.partition(".")
    for ours, theirs in _BLOCK.items():
        if inner == ours or inner.startswith(f"{ours}."):
            return f"{ENCODER}layers{number}.0.blocks.{index}.{theirs}{inner.removeprefix(ours)}"
    return None


def _conv(name: str) -> str:
    """`conv1.weight` -> `conv1.conv.weight`."""
    return name.replace(".weight", ".conv.weight")


def standard_name(key: str) -> str:
    """Return a published key as MONAI's SwinUNETR of today calls it."""
    key = _unwrapped(key)
    key = key.replace("swin_vit.", ENCODER, 1) if key.startswith("swin_vit.") else key
    inner = key.removeprefix("encoder.")
    if _BARE.match(inner):
        key = ENCODER + inner
    if not key.startswith(ENCODER):
        return key
    key = re.sub(r"(layers\dc?)\.0\.0\.", r"\1.0.", key)
    return key.replace(".mlp.fc1.", ".mlp.linear1.").replace(".mlp.fc2.", ".mlp.linear2.")


def layout_of(keys: Iterable[str]) -> Layout:
    """Return the layout that the keys of a file are in."""
    names = [_unwrapped(key) for key in keys]
    if any(name.startswith("encoder.") and _BARE.match(name.removeprefix("encoder.")) for name in names):
        return "autoencoder"
    if any(".mlp.fc1." in name for name in names) or any(_BARE.match(name) for name in names):
        return "self-supervised"
    return "swin_vit" if any(name.startswith("swin_vit.") for name in names) else "SwinUNETR"


def _unwrapped(key: str) -> str:
    while prefix := next((p for p in WRAPPERS if key.startswith(p)), None):
        key = key.removeprefix(prefix)
    return key
