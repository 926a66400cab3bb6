"""Cases that show the same image: the same voxels under two names, or nearly the same ones."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from jaxtyping import Float, Float32
from scipy import ndimage, stats
from scipy.sparse import csgraph

from autospine.core.types import ChannelArray, Vector3
from autospine.storage.digest import digest_of_voxels

SIDE = 20
"""Blocks along each axis of a thumbnail: vertebrae and organs differ from person to person at that size."""

ALIKE = 0.4
"""Correlation of two thumbnails above which they show one image. Measured on twelve phantoms of one field of
view and on six real volumes: different ones at most 0.17 (0.27 where there are only six slices); copies that
were windowed at least 0.82, smoothed 0.87, cut by a voxel 0.72, at 0.7 of the resolution 0.67, with noise of
a tenth of the range 0.56."""

SAME_SIZE = 0.05
"""Images whose fields of view differ by more than this share along an axis are not compared: their blocks
would not match."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ImageSignature:
    """The features by which a copy of an image is recognised."""

    digest: str
    """Digest of the voxels' values, independent of their type, file format and orientation."""

    thumbnail: Float32[np.ndarray, "points"]
    """Local detail at `SIDE`^3 points as a vector of length 1, or 0 for an image without detail."""

    size_mm: Vector3
    """Field of view along S, P, L."""


def image_signature(image: ChannelArray, size_mm: Vector3) -> ImageSignature:
    """Return the signature of an image (S, P, L) with a given field of view."""
    return ImageSignature(digest=digest_of_voxels(image), thumbnail=_details(_shrunk(image)), size_mm=size_mm)


def find_duplicates(
    names: Sequence[str], signatures: Sequence[ImageSignature]
) -> tuple[tuple[str, ...], ...]:
    """Return the groups of cases that show the same image, or nearly so, each in order of the names."""
    thumbnails = np.stack([signature.thumbnail for signature in signatures])
    sizes = np.asarray([signature.size_mm for signature in signatures])
    digests = np.asarray([signature.digest for signature in signatures])
    close = np.abs(np.log(sizes[:, None] / sizes)).max(axis=-1) < SAME_SIZE
    same = digests[:, None] == digests
    count, group = csgraph.connected_components(same | (close & (thumbnails @ thumbnails.T > ALIKE)))
    groups = [tuple(sorted(np.asarray(names)[group == index].tolist())) for index in range(count)]
    return tuple(sorted(together for together in groups if len(together) > 1))


def _shrunk(image: ChannelArray) -> Float32[np.ndarray, "side side side"]:
    """Return means over blocks, `SIDE` along each axis; with fewer voxels, blocks share some of them."""
    for axis in range(3):
        along = np.moveaxis(image, axis, 0)
        edges = np.linspace(0, len(along), SIDE + 1).astype(int)
        blocks = [along[a : max(a + 1, b)] for a, b in pairwise(edges)]
        image = np.moveaxis(np.stack([block.mean(axis=0, dtype=np.float32) for block in blocks]), 0, axis)
    return image


def _details(small: Float[np.ndarray, "side side side"]) -> Float32[np.ndarray, "points"]:
    """Return ranks, which no window or scale changes, less those of the surroundings, which spines share."""
    ranks = stats.rankdata(small).reshape(small.shape)
    details = (ranks - ndimage.uniform_filter(ranks, 3)).ravel()
    length = np.linalg.norm(details)
    vector: np.ndarray = (details / length if length > 0 else details).astype(np.float32)
    return vector
