"""Import of MONAI's SwinUNETR weights into AdaptiveSwinUNETR."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from autospine.core.errors import FormatError, listed
from autospine.core.types import Shape3
from autospine.network.swin.swin_unetr import AdaptiveSwinUNETR
from autospine.network.swin.windows import LEGACY_MERGING_ORDER, MERGING_ORDER
from autospine.network.weights.conversion import (
    MergingWeights,
    adapt_channels,
    rearrange_merging,
    resize_table,
    shorten,
    shorten_transposed,
    window_of_table,
)
from autospine.network.weights.file import read_weights, tensors_of
from autospine.network.weights.import_report import REORDERED, ImportReport, StackingOrder, is_encoder
from autospine.network.weights.names import ENCODER, Layout, layout_of, monai_name, standard_name

SMALLEST_SHARE = 0.9
"""Share of the encoder's tensors that a file has to fill."""

TOKENS: dict[StackingOrder, tuple[Shape3, ...]] = {
    "fixed": MERGING_ORDER,
    "legacy": LEGACY_MERGING_ORDER,
    "v2": tuple((s, p, left) for s, p, left in product(range(2), repeat=3)),
}
"""Offset (S, P, L) of each token that a merging stacks."""

INDEX = "relative_position_index"
"""A buffer that says nothing but the window."""

_SEES_IMAGE = ("embedding.weight", "encoders.0.conv1.weight", "encoders.0.conv3.weight")

_LISTED = 4
"""Contradictions that an error names."""


def load_monai(
    network: AdaptiveSwinUNETR,
    state_dict: Mapping[str, object],
    *,
    merge_order: StackingOrder | Literal["auto"] = "auto",
    window_size: int | Shape3 | None = None,
    exact: bool = False,
) -> ImportReport:
    """Fill a network with the weights of MONAI's SwinUNETR.

    Known are the names of MONAI itself with any of the usual prefixes, those of self-supervised training
    (`model_swinvit.pt`, an encoder alone) and of the disruptive autoencoder. Where the network differs from
    the file, tensors are converted: bias tables to its windows, the first layers to its input channels,
    mergings, embedding and up-sampling to its strides. Its head keeps its weights where the numbers of
    classes differ. Nothing is changed if an error is raised.

    With `merge_order="auto"`, the layouts that were in use before MONAI 1.5 alone (all but MONAI's own) are
    taken for `legacy`, all others for `fixed`. Legacy weights compute the same in a network of that order
    alone; in another, a token that was stacked twice acts with the sum of both weights.

    Args:
        network: Takes the weights, in its own precision.
        state_dict: Names and tensors; may lie in the usual containers, as in `{"state_dict": ...}`.
        merge_order: In which the file's network stacks the tokens of a merging.
        window_size: Of the file's network, where neither its tables' size nor their index tells it.
        exact: Refuse what changes the network's function: other mergings, strides, windows and channels.

    Raises:
        FormatError: If fewer than 90 % of the encoder's tensors are filled, or shapes contradict the network.
    """
    tensors = tensors_of(state_dict, "the state dict")
    order, reason = _merge_order(layout_of(tensors), merge_order, is_old=False)
    return _Import(network, tensors, order, reason, _triple(window_size), exact).run()


def load_monai_file(
    network: AdaptiveSwinUNETR,
    path: Path,
    *,
    merge_order: StackingOrder | Literal["auto"] = "auto",
    window_size: int | Shape3 | None = None,
    exact: bool = False,
) -> ImportReport:
    """Fill a network from a file, as `load_monai` does from a state dict.

    With `merge_order="auto"`, a checkpoint that torch of before 2025 has written is taken for `legacy` too:
    MONAI 1.5, which stacks tokens in the present order, is of June 2025.

    Raises:
        FormatError: If the file holds no weights, or as in `load_monai`.
    """
    read = read_weights(path)
    order, reason = _merge_order(layout_of(read.tensors), merge_order, is_old=read.is_old)
    return _Import(network, read.tensors, order, reason, _triple(window_size), exact).run()


def _merge_order(
    layout: Layout, wanted: StackingOrder | Literal["auto"], *, is_old: bool
) -> tuple[StackingOrder, str]:
    if wanted != "auto":
        if wanted not in TOKENS:
            raise FormatError(
                f"expected the merge order auto, {', '.join(TOKENS)}, found {wanted!r}; choose one of them"
            )
        return wanted, "as was asked for"
    if layout != "SwinUNETR":
        return "legacy", f"weights in the layout {layout} are older than MONAI 1.5"
    if is_old:
        return "legacy", "a guess, since the file is in a format that torch wrote by itself before 2025 only"
    return "fixed", "a guess, since nothing tells that the weights are older than MONAI 1.5"


@dataclass(slots=True)
class _Import:
    """One run of an import, which collects before it changes anything."""

    network: AdaptiveSwinUNETR
    tensors: dict[str, Tensor]
    order: StackingOrder
    reason: str
    window: Shape3 | None
    exact: bool
    found: dict[str, Tensor] = field(default_factory=dict)
    """The file's tensors by MONAI's name, less those that have been used."""
    keys: dict[str, str] = field(default_factory=dict)
    """MONAI's name -> the file's key."""
    filled: dict[str, Tensor] = field(default_factory=dict)
    how: dict[str, str] = field(default_factory=dict)

    def run(self) -> ImportReport:
        """Match all tensors, then fill the network with them."""
        self._name()
        targets = self.network.state_dict()
        self._check_widths(targets)
        partners = {name: monai_name(name) for name in targets}
        for name, target in targets.items():
            partner = partners[name]
            if name.endswith("merging.reduction.weight"):
                self._merge(name.removesuffix("reduction.weight"))
            elif partner in self.found and ".merging." not in name:
                self._take(name, partner, target)
        self._check_shapes(targets)
        self._check_function()
        report = ImportReport(
            layout=layout_of(self.tensors),
            merge_order=self.order,
            merge_reason=self.reason,
            matched=tuple(name for name in targets if name in self.filled and name not in self.how),
            converted={name: self.how[name] for name in targets if name in self.how},
            missing=tuple(n for n in targets if partners[n] is not None and n not in self.filled),
            own=tuple(n for n in targets if partners[n] is None),
            unused=tuple(self.keys[name] for name in self.found if not name.endswith(INDEX)),
        )
        self._check_report(report)
        with torch.no_grad():
            for name, tensor in self.filled.items():
                targets[name].copy_(tensor)
        return report

    def _name(self) -> None:
        for key, tensor in self.tensors.items():
            name = standard_name(key)
            if name in self.found:
                raise FormatError(
                    f"expected one tensor {name} in the weights, found {self.keys[name]} and {key}; "
                    "leave one of the two networks out of the file"
                )
            self.found[name], self.keys[name] = tensor, key

    def _take(self, name: str, partner: str, target: Tensor) -> None:
        """Fill one tensor, converted where the network differs from the file in a way that is known."""
        tensor = self.found[partner]
        if tensor.ndim == 5:
            tensor = self._fit_kernel(name, tensor, target)
        elif name.endswith("bias_table"):
            tensor = self._fit_table(name, tensor)
        if name.startswith("head.") and len(tensor) != len(target):
            return
        self.filled[name] = tensor
        del self.found[partner]

    def _fit_kernel(self, name: str, kernel: Tensor, target: Tensor) -> Tensor:
        """Return a kernel for the network's channels and strides, in the order of axes that it keeps."""
        if name == "head.weight":
            return kernel.flatten(1)
        if name.endswith("transposed"):
            size = _spatial(target)
            return self._noted(name, shorten_transposed(kernel, size), kernel, f"mean to the stride {size}")
        if name == "embedding.weight":
            size = _spatial(target)
            kernel = self._noted(name, shorten(kernel, size), kernel, f"summed to the stride {size}")
        channels = self.network.in_channels
        if name in _SEES_IMAGE and kernel.shape[1] != channels:
            how = f"from {kernel.shape[1]} to {channels} input channels, evenly"
            kernel = self._noted(name, adapt_channels(kernel, channels), kernel, how)
        seen = target.shape[1 if name == "embedding.weight" else -1]
        if name in _SEES_IMAGE and seen > channels:
            shown = torch.cat([kernel, torch.zeros_like(kernel[:, : seen - channels])], dim=1)
            kernel = self._noted(name, shown, kernel, "with zeros for the channel of the gradient")
        return kernel if name == "embedding.weight" else kernel.permute(0, 2, 3, 4, 1)

    def _fit_table(self, name: str, table: Tensor) -> Tensor:
        wanted = self.network.windows[int(name.split(".")[1])]
        index = self.found.get(str(monai_name(name)).replace("relative_position_bias_table", INDEX))
        window = window_of_table(len(table), index, wanted) if self.window is None else self.window
        if window is None or len(table) != _rows(window):
            raise FormatError(
                f"expected the weights' window to have the {len(table)} offsets of their bias tables, found "
                f"{window or 'none that is known to'}; give the right one as window_size (--window)"
            )
        if window == wanted:
            return table
        resized = resize_table(table, window, wanted)
        return self._noted(name, resized, table, f"interpolated from window {window} to {wanted}")

    def _merge(self, prefix: str) -> None:
        """Fill the norm and the linear layer of a merging, which can be rearranged together only."""
        names = [f"{prefix}{part}" for part in ("norm.weight", "norm.bias", "reduction.weight")]
        partners = [str(monai_name(name)) for name in names]
        if any(partner not in self.found for partner in partners):
            return
        gain, shift, reduction = (self.found.pop(partner) for partner in partners)
        cell = self.network.strides[int(prefix.split(".")[1]) + 1]
        wanted = _inside(TOKENS[self.network.merge_order], cell)
        tokens, how = TOKENS[self.order], self._merging_change(cell)
        fits = reduction.ndim == 2 and reduction.shape[1] % len(tokens) == 0
        if how and fits and gain.shape == shift.shape == reduction.shape[1:]:
            weights = MergingWeights(gain=gain, shift=shift, reduction=reduction)
            weights = rearrange_merging(weights, tokens, wanted)
            gain, shift, reduction = weights.gain, weights.shift, weights.reduction
            self.how.update(dict.fromkeys(names, how))
        self.filled.update(zip(names, (gain, shift, reduction), strict=True))

    def _merging_change(self, cell: Shape3) -> str | None:
        """Return what happens to a merging, None if nothing does.

        Raises:
            FormatError: If it cannot be done, or not exactly where that is asked for.
        """
        order, own = self.order, self.network.merge_order
        if own == "legacy" and order != "legacy":
            raise FormatError(
                f"expected weights of the merge order legacy for a network of that order, found {order} "
                f'({self.reason}); build the network with merge_order="fixed"'
            )
        parts = []
        if order == "legacy" and own == "fixed":
            self._refuse_inexact(
                f"the merge order {own}, found legacy ({self.reason})", 'a network with merge_order="legacy"'
            )
            parts.append("tokens that were stacked twice summed, as an approximation")
        if order == "v2":
            parts.append(REORDERED)
        if cell != (2, 2, 2):
            self._refuse_inexact(f"mergings of stride (2, 2, 2), found {cell}", "a network with such strides")
            parts.append(f"tokens summed to the stride {cell}")
        return ", ".join(parts) or None

    def _noted(self, name: str, result: Tensor, before: Tensor, how: str) -> Tensor:
        """Return the result, with a note of what was done where it is another tensor."""
        if result is before:
            return result
        self._refuse_inexact(
            f"{monai_name(name)} to fit as it is, found that it must be {how}", "such a network"
        )
        self.how[name] = f"{self.how[name]}, {how}" if name in self.how else how
        return result

    def _refuse_inexact(self, expected: str, instead: str) -> None:
        if self.exact:
            raise FormatError(f"expected {expected}; build {instead}, or allow conversion")

    def _check_widths(self, targets: Mapping[str, Tensor]) -> None:
        """Refuse weights of another feature size or other heads, by the tensors that show it best."""
        embedding = self.found.get(f"{ENCODER}patch_embed.proj.weight")
        wanted = len(targets["embedding.weight"])
        self._check_axes(targets)
        if embedding is not None and len(embedding) != wanted:
            raise FormatError(
                f"expected weights of the network's feature size {wanted}, found {len(embedding)}; "
                f"plan with --feature-size {len(embedding)}, or build the network with it"
            )
        for name, target in targets.items():
            table = self.found.get(monai_name(name) or "") if name.endswith("bias_table") else None
            if table is not None and table.shape[1:] != target.shape[1:]:
                raise FormatError(
                    f"expected weights with the network's {target.shape[1]} heads in stage "
                    f"{int(name.split('.')[1]) + 1}, found {table.shape[1]}; "
                    "change num_heads of the plan or of the network"
                )

    def _check_axes(self, targets: Mapping[str, Tensor]) -> None:
        """Refuse tensors with other numbers of axes than MONAI's, which no conversion could take."""
        for name, target in targets.items():
            tensor = self.found.get(monai_name(name) or "")
            axes = 5 if name == "head.weight" else target.ndim
            if tensor is not None and tensor.ndim != axes:
                raise FormatError(
                    f"expected {axes} axes of {monai_name(name)} in the weights, found {tensor.ndim}; "
                    "give weights of a SwinUNETR for volumes"
                )

    def _check_shapes(self, targets: Mapping[str, Tensor]) -> None:
        wrong = [
            f"{monai_name(name)} {tuple(tensor.shape)} for {tuple(targets[name].shape)}"
            for name, tensor in self.filled.items()
            if tensor.shape != targets[name].shape
        ]
        if wrong:
            raise FormatError(
                f"expected weights of the network's shapes, found {listed(wrong, _LISTED, '; ')}; "
                "build the network with the sizes of the weights' one"
            )
        spoilt = [str(monai_name(n)) for n, t in self.filled.items() if not bool(torch.isfinite(t).all())]
        if spoilt:
            raise FormatError(
                f"expected finite weights, found NaN or infinity in {', '.join(spoilt[:_LISTED])}; "
                "take an earlier checkpoint"
            )

    def _check_function(self) -> None:
        """Refuse a network that would compute something else, where the function is to be exact."""
        blocks = [name for name in self.network.state_dict() if ".residual." in name]
        if any(name not in self.filled for name in blocks):
            self._refuse_inexact(
                "convolution blocks of version 2 in the weights, as the network has them, found none",
                "a network with use_v2=False",
            )
        if self.network.clamps_windows and not self.network.legacy_bias_slice:
            self._refuse_inexact(
                "a network that reads the bias of clamped windows as MONAI does, found the native reading",
                "a network with legacy_bias_slice=True, or with windows that fit their grids",
            )

    def _check_report(self, report: ImportReport) -> None:
        if report.encoder_share >= SMALLEST_SHARE:
            return
        if any(key.startswith(("embedding.", "bottleneck.")) for key in report.unused):
            raise FormatError(
                "expected weights of MONAI's SwinUNETR, found those of an AutoSpine model; "
                "give the file that the model was imported from, or train a new one"
            )
        lacking = [str(monai_name(name)) for name in report.missing if is_encoder(name)]
        raise FormatError(
            f"expected at least {SMALLEST_SHARE:.0%} of the encoder's tensors in the weights, found "
            f"{report.encoder_share:.0%}: {', '.join(lacking[:_LISTED])} ... are missing, and "
            f"{', '.join(report.unused[:_LISTED]) or 'nothing'} has no place; "
            "give weights of a SwinUNETR with the network's depths"
        )


def _inside(tokens: Sequence[Shape3], cell: Shape3) -> tuple[Shape3, ...]:
    """Return the offsets that lie in the cell of a stride."""
    return tuple(offset for offset in tokens if all(o < c for o, c in zip(offset, cell, strict=True)))


def _spatial(kernel: Tensor) -> Shape3:
    return kernel.shape[2], kernel.shape[3], kernel.shape[4]


def _rows(window: Sequence[int]) -> int:
    return (2 * window[0] - 1) * (2 * window[1] - 1) * (2 * window[2] - 1)


def _triple(window: int | Shape3 | None) -> Shape3 | None:
    triple = (window, window, window) if isinstance(window, int) else window
    if triple is not None and (len(triple) != 3 or min(triple) < 1):
        raise FormatError(f"expected a window of three positive edges, found {window}; correct it")
    return triple
