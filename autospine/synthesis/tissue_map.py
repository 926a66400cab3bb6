"""Tissue maps: per voxel the two tissues that it holds and their shares, packed into one integer.

A code is `first + 256 * second + 65536 * share`, where share is that of the second tissue in steps of 1/255,
at most a half. An ordinary label map is a tissue map, too: its voxels hold one tissue each.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float32, Int32, UInt8

from autospine.core.types import Slices3
from autospine.synthesis.tissues import CODES, TISSUES

TissueCodes = Int32[np.ndarray, "..."]
"""Packed tissues of each voxel."""

STEPS = 255
"""Number of steps of a share of 1."""

LEAST_SHARE = 1 / 512
"""Shares below this one leave a voxel as it is."""

_HU = np.array([tissue.hu for tissue in TISSUES.values()], dtype=np.float32)


def unpacked(
    codes: TissueCodes,
) -> tuple[UInt8[np.ndarray, "..."], UInt8[np.ndarray, "..."], Float32[np.ndarray, "..."]]:
    """Return the first tissue, the second tissue and the share of the second (0 to 1) of each voxel."""
    first = (codes & 255).astype(np.uint8)
    second = ((codes >> 8) & 255).astype(np.uint8)
    return first, second, (codes >> 16).astype(np.float32) * np.float32(1 / STEPS)


@dataclass(frozen=True, kw_only=True, slots=True)
class Mixture:
    """Tissues that are being painted one over the other; painting changes the arrays in place."""

    first: UInt8[np.ndarray, "S P L"]
    """Code of the tissue painted first."""
    second: UInt8[np.ndarray, "S P L"]
    """Code of the other tissue."""
    share: Float32[np.ndarray, "S P L"]
    """Share of the second tissue, 0 to 1."""

    def paint(self, tissue: str, share: Float32[np.ndarray, "s p l"], box: Slices3) -> None:
        """Replace a share of what is in each voxel of a box by a tissue.

        A voxel keeps two tissues: of three, the one with the smallest share goes, and the others take shares
        that keep the voxel's mean in HU, as far as they can.

        Args:
            tissue: Name of the tissue.
            share: Share of the voxel that it covers, 0 to 1, over the box.
            box: Part of the map.
        """
        code = np.uint8(CODES[tissue])
        first, second, mixed = self.first[box], self.second[box], self.share[box]
        whole = share > 1 - LEAST_SHARE
        first[whole], mixed[whole] = code, 0.0
        partly = (share > LEAST_SHARE) & ~whole
        if partly.any():
            a, b, w = first[partly], second[partly], mixed[partly]
            first[partly], second[partly], mixed[partly] = _joined(a, b, w, code, share[partly])

    def codes(self) -> Int32[np.ndarray, "S P L"]:
        """Return the packed map; the tissue with the larger share comes first."""
        swap = self.share > 0.5
        first = np.where(swap, self.second, self.first).astype(np.int32)
        second = np.where(swap, self.first, self.second).astype(np.int32)
        share = np.rint(np.where(swap, 1 - self.share, self.share) * STEPS).astype(np.int32)
        second[share == 0] = 0
        packed: np.ndarray = first + (second << 8) + (share << 16)
        return packed


def _joined(
    a: UInt8[np.ndarray, "n"],
    b: UInt8[np.ndarray, "n"],
    w: Float32[np.ndarray, "n"],
    code: np.uint8,
    s: Float32[np.ndarray, "n"],
) -> tuple[UInt8[np.ndarray, "n"], UInt8[np.ndarray, "n"], Float32[np.ndarray, "n"]]:
    """Return two tissues and the second one's share for voxels of two tissues that get a third."""
    shares = np.stack([(1 - w) * (1 - s), w * (1 - s), s])
    shares[0] += np.where(a == code, s, 0)
    shares[1] += np.where((b == code) & (a != code), s, 0)
    shares[2] = np.where((a == code) | (b == code), 0, s)
    tissues = np.stack([a, b, np.full_like(a, code)])
    mean = (_HU[tissues] * shares).sum(axis=0)
    # Rows in ascending order of share: the first one is dropped.
    order = np.argsort(shares, axis=0)
    tissues, shares = (np.take_along_axis(x, order, axis=0) for x in (tissues, shares))
    kept = shares[2] / (shares[1] + shares[2])
    low, high = _HU[tissues[1]], _HU[tissues[2]]
    step = high - low
    fitting = np.clip((mean - low) / np.where(step == 0, 1, step), 0.02, 0.98)
    share = np.where((shares[0] > LEAST_SHARE) & (np.abs(step) > 50), fitting, kept)
    return tissues[1], tissues[2], share.astype(np.float32)


def new_mixture(shape: tuple[int, int, int], tissue: str = "air") -> Mixture:
    """Return a map of one tissue."""
    return Mixture(
        first=np.full(shape, CODES[tissue], dtype=np.uint8),
        second=np.zeros(shape, dtype=np.uint8),
        share=np.zeros(shape, dtype=np.float32),
    )
