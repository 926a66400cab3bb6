"""Checkpoints as MONAI and its users write them, made from networks of our own."""

from pathlib import Path

import makers
from torch import Tensor, device, manual_seed, ones

from autospine.models.imported_weights import save_imported
from autospine.network import AdaptiveSwinUNETR, ImportReport
from autospine.network.swin.windows import relative_position_index
from autospine.network.weights.names import ENCODER, monai_name
from autospine.plan import build_network

CPU = device("cpu")


def small(in_channels: int = 1, out_channels: int = 3, **changes) -> AdaptiveSwinUNETR:
    """A network that is built fast."""
    settings = {
        "feature_size": 8,
        "depths": (1, 2, 1, 1),
        "num_heads": (2, 2, 4, 4),
        "window_size": 4,
        "use_v2": False,
        "legacy_bias_slice": True,
        **changes,
    }
    return AdaptiveSwinUNETR(in_channels, out_channels, **settings).eval()


def as_monai(network: AdaptiveSwinUNETR) -> dict[str, Tensor]:
    """The state dict of MONAI's network that computes what this one does."""
    state = {}
    for name, tensor in network.state_dict().items():
        theirs, value = monai_name(name), tensor.clone()
        if theirs is None:
            continue
        if value.ndim == 5 and name != "embedding.weight" and not name.endswith("transposed"):
            value = value.permute(0, 4, 1, 2, 3).contiguous()
        elif name == "head.weight":
            value = value[..., None, None, None]
        elif name.endswith("bias_table"):
            window = network.windows[int(name.split(".")[1])]
            n = window[0] * window[1] * window[2]
            index = relative_position_index(window, window, CPU).view(n, n).clone()
            state[theirs.replace("bias_table", "index")] = index
        state[theirs] = value
    return state


def as_self_supervised(network: AdaptiveSwinUNETR) -> dict[str, Tensor]:
    """The same in the layout of `model_swinvit.pt`: an encoder alone, with heads of its training."""
    state = {}
    for name, tensor in as_monai(network).items():
        if name.startswith(ENCODER):
            inner = name.removeprefix(ENCODER).replace("mlp.linear", "mlp.fc")
            state[f"module.{inner}"] = tensor
    width = state["module.patch_embed.proj.bias"].numel() * 16
    heads = {"norm.weight": (width,), "norm.bias": (width,), "rotation_head.weight": (4, width)}
    return state | {f"module.{name}": ones(shape) for name, shape in heads.items()}


def save_import(path: Path, seed: int, **changes) -> Path:
    """An encoder's weights for the network of a small configuration, as an import leaves them."""
    configuration = makers.configuration(**changes)
    plan = makers.plan(configuration)
    manual_seed(seed)
    network = build_network(plan, configuration)
    report = ImportReport(
        layout="SwinUNETR",
        merge_order="fixed",
        merge_reason="",
        matched=tuple(name for name in network.state_dict() if name.startswith("stages.")),
        converted={"embedding.weight": "cut"},
        missing=(),
        own=(),
        unused=(),
    )
    save_imported(path, network, report, plan=plan, configuration=configuration, source="theirs.pt")
    return path
