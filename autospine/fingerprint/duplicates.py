"""Cases that show the same image: the same voxels under two names, or nearly the same ones."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from scipy import ndimage, stats
from scipy.sparse import csgraph

from autospine.core.types import Vector3

SIDE = 20
"""Blocks along each axis of a thumbnail: vertebrae and organs differ from person to person at that size."""

ALIKE = 0.4
"""Correlation of two thumbnails above which they show one image. Measured on twelve phantoms of one field of
view and on six real volumes: different ones at most 0.17 (0.27 where there are only six slices); copies that
were windowed at least 0.82, smoothed 0.87, cut by a voxel 0.72, at 0.7 of the resolution 0.67, with noise of
a tenth of the range 0.56."""

SAME_SIZE = 0.05
"""Fields of view that differ by more than this share along an axis are not compared: their blocks would not
match."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Likeness:
    """What an image is recognised by."""

    digest: str
    """Of its voxels' values, whatever their type, file format and orientation were."""

    thumbnail: np.ndarray
    """Details as a vector of length 1, or 0 without any; (SIDE^3,), float32."""

    size_mm: Vector3
    """Field of view."""


def likeness(image: np.ndarray, size_mm: Vector3) -> Likeness:
    """What an image (S, P, L) is recognised by."""
    return Likeness(digest=_digest(image), thumbnail=_details(_shrunk(image)), size_mm=size_mm)


def find_duplicates(names: Sequence[str], seen: Sequence[Likeness]) -> tuple[tuple[str, ...], ...]:
    """Groups of cases that show the same image, or nearly so: each in order of the names."""
    thumbnails = np.stack([one.thumbnail for one in seen])
    sizes = np.asarray([one.size_mm for one in seen])
    digests = np.asarray([one.digest for one in seen])
    close = np.abs(np.log(sizes[:, None] / sizes)).max(axis=-1) < SAME_SIZE
    same = digests[:, None] == digests
    count, group = csgraph.connected_components(same | (close & (thumbnails @ thumbnails.T > ALIKE)))
    found = [tuple(sorted(np.asarray(names)[group == one].tolist())) for one in range(count)]
    return tuple(sorted(together for together in found if len(together) > 1))


def _digest(image: np.ndarray) -> str:
    """Plane by plane as float32, so that an image saved anew as another type counts as the same."""
    digest = hashlib.blake2b(repr(image.shape).encode(), digest_size=16)
    for plane in image:
        digest.update(plane.astype(np.float32).tobytes())
    return digest.hexdigest()


def _shrunk(image: np.ndarray) -> np.ndarray:
    """Means over blocks, `SIDE` along each axis; where there are fewer voxels, some stand for several."""
    for axis in range(3):
        along = np.moveaxis(image, axis, 0)
        edges = np.linspace(0, len(along), SIDE + 1).astype(int)
        blocks = [along[a : max(a + 1, b)] for a, b in pairwise(edges)]
        image = np.moveaxis(np.stack([block.mean(axis=0, dtype=np.float32) for block in blocks]), 0, axis)
    return image


def _details(small: np.ndarray) -> np.ndarray:
    """Ranks, which no window or scale changes, less those of the surroundings, which all spines share."""
    ranks = stats.rankdata(small).reshape(small.shape)
    details = (ranks - ndimage.uniform_filter(ranks, 3)).ravel()
    length = np.linalg.norm(details)
    vector: np.ndarray = (details / length if length > 0 else details).astype(np.float32)
    return vector
