"""Digests of files and texts: SHA-256 where others may check them, else BLAKE2b of 128 bits."""

import hashlib
from collections.abc import Iterable
from itertools import chain
from pathlib import Path

import numpy as np

from autospine.core.types import ChannelArray
from autospine.storage.file_names import open_file


def digest_of(parts: Iterable[bytes]) -> str:
    """Return the BLAKE2b digest, 128 bits in hexadecimal, of the concatenation of `parts`."""
    digest = hashlib.blake2b(digest_size=16)
    for part in parts:
        digest.update(part)
    return digest.hexdigest()


def digest_of_file(path: Path) -> str:
    """Return the BLAKE2b digest, 128 bits in hexadecimal, of a file's content."""
    with open_file(path) as file:
        return hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=16)).hexdigest()


def digest_of_files(paths: Iterable[Path]) -> str:
    """Return the BLAKE2b digest, 128 bits in hexadecimal, of the digests (512 bits) of several files.

    It depends on the order of the files and on their content, not on their names.
    """

    def contents() -> Iterable[bytes]:
        for path in paths:
            with open_file(path) as file:
                yield hashlib.file_digest(file, "blake2b").digest()

    return digest_of(contents())


def digest_of_voxels(image: ChannelArray) -> str:
    """Return the BLAKE2b digest, 128 bits in hexadecimal, of an image's shape and values (S, P, L).

    Planes are hashed as float32, so that an image saved anew as another type counts as the same.
    """
    planes = (plane.astype(np.float32).tobytes() for plane in image)
    return digest_of(chain([repr(image.shape).encode()], planes))


def sha256_of(parts: Iterable[bytes]) -> str:
    """Return the SHA-256 digest, in hexadecimal, of the concatenation of `parts`."""
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part)
    return digest.hexdigest()


def sha256_of_file(path: Path) -> str:
    """Return the SHA-256 digest, in hexadecimal, of a file's content."""
    with open_file(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
