"""Stored cases: images as arrays of 16 bits from which any box is read in milliseconds.

Per case `NAME_image.b2nd`, `NAME_labels.b2nd`, where it has a tissue map `NAME_tissues.b2nd` (or `.npy`),
`NAME_locations.npy` and, written last, `NAME.json`: a case is there if and only if its JSON is.
"""

import io
import os
import shutil
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int16, Int32

from autospine.core.errors import FormatError, WorkspaceError
from autospine.core.geometry import Box
from autospine.core.labels import IGNORE_INDEX
from autospine.core.types import ImageArray, LabelArray, Modality, Shape3, Vector3
from autospine.preprocessing.normalise import IntensityTransform
from autospine.preprocessing.prepare import Encoding, Prepared
from autospine.preprocessing.resample import bounding_boxes
from autospine.storage.arrays import ENDINGS, ArrayFormat, open_array, open_checked, write_array
from autospine.storage.atomic import replacing, write_text
from autospine.storage.file_names import open_file, path_below, read_text
from autospine.storage.serialization import FileName, read_json, stored_as, to_json

FORMAT_VERSION = 2
"""Version of what is stored of a case. Cases of version 1 have no checksums, and are read as they are."""

VOXELS_VERSION = 1
"""Version of how voxels come from raw files; with another one, cases are preprocessed, and folds trained,
anew."""

LOCATIONS_PER_LABEL = 2000
"""Number of voxels kept of each label, to centre patches on."""

CHECKED = {"image", "labels", "locations", "record"}
"""Parts of every case that have checksums; a tissue map has one, too."""

BLANK = "0" * 8
"""Stands for the checksum of the record while it is computed."""

SPARE_BYTES = 2**20
"""Room for a case's small files."""


@stored_as("the record of a preprocessed case", largest=2**20)
@dataclass(frozen=True, kw_only=True, slots=True)
class CaseRecord:
    """The content of `NAME.json`: everything about a stored case but its voxels."""

    format_version: int
    name: FileName
    modality: Modality
    subject: str
    site: str | None
    source_shape: Shape3
    """Shape of the canonical volume before the crop."""

    source_spacing_mm: Vector3
    crop: Box
    """Part of the volume that was kept."""

    shape: Shape3
    """Shape of the stored arrays along S, P, L."""

    channels: int
    spacing_mm: Vector3
    """Voxel size as stored."""

    encoding: Encoding
    transform: IntensityTransform
    label_voxels: tuple[tuple[int, int], ...]
    """(stored index, voxels) of every label present, background included."""

    repairs: tuple[str, ...]
    """Notes on repairs to the header on reading."""

    key: str
    """Digest of the raw files' names, sizes and times, of the row of `cases.csv` and of the settings; as long
    as it is the same, the case is up to date."""

    content: str = ""
    """Digest of the raw files' bytes, the modality and the settings; if it changes, the stored voxels are out
    of date."""

    image: str = ""
    """Digest of the voxels of the first channel, empty in earlier versions."""

    arrays: ArrayFormat = "blosc2"
    """Format of image and labels."""

    tissues: dict[int, str] = field(default_factory=dict)
    """Name of each code in the case's tissue map; empty if it has none."""

    checksums: dict[str, str] = field(default_factory=dict)
    """Checksums (CRC-32) of the case's files by part, and of this record; none in version 1."""


@dataclass(kw_only=True, slots=True)
class StoredCase:
    """One case to cut patches from; it is pickled without its open files."""

    folder: Path
    record: CaseRecord
    _open: dict[str, Any] = field(default_factory=dict, repr=False, compare=False)

    def __getstate__(self) -> tuple[Path, CaseRecord]:
        return self.folder, self.record

    def __setstate__(self, state: tuple[Path, CaseRecord]) -> None:
        self.folder, self.record = state
        self._open = {}

    @property
    def name(self) -> str:
        """The case's name."""
        return self.record.name

    @property
    def shape(self) -> Shape3:
        """Voxels as stored."""
        return self.record.shape

    @property
    def nbytes(self) -> int:
        """Memory of the decompressed case in bytes."""
        voxels = int(np.prod(self.shape))
        return voxels * (2 * self.record.channels + 1 + (4 if self.record.tissues else 0))

    @property
    def locations(self) -> Mapping[int, Int32[np.ndarray, "N 3"]]:
        """Positions (S, P, L) of some voxels of each label that occurs, but background and ignored ones."""
        if "locations" not in self._open:
            with self._reading("locations"):
                with open_file(self._path("locations")) as file:
                    data = file.read()
                if self.record.checksums and _checksum(data) != self.record.checksums["locations"]:
                    raise ValueError("some of its bytes changed after it was written")
                table = np.load(io.BytesIO(data), allow_pickle=False)
                rows = table[:, 1:]
                self._open["locations"] = {int(i): rows[table[:, 0] == i] for i in np.unique(table[:, 0])}
        located: dict[int, np.ndarray] = self._open["locations"]
        return located

    def image(self, box: Box, transform: IntensityTransform | None = None) -> ImageArray:
        """Read a box of the normalised image, float32 (C, *box.shape); the box must lie inside the case.

        Args:
            box: Box in voxels as stored.
            transform: Intensity transform to use instead of the case's own.
        """
        return (transform or self.record.transform).apply(self.record.encoding.decode(self.stored(box)))

    def stored(self, box: Box) -> Int16[np.ndarray, "C S P L"]:
        """Read a box of the image as stored; see `record.encoding`."""
        values: np.ndarray = self._read("image", (slice(None), *box.slices))
        return values

    def labels(self, box: Box) -> LabelArray:
        """Read a box of the stored label indices, uint8."""
        values: np.ndarray = self._read("labels", box.slices)
        return values

    def tissues(self, box: Box) -> Int32[np.ndarray, "S P L"]:
        """Read a box of the tissue map, which the case must have."""
        values: np.ndarray = self._read("tissues", box.slices)
        return values

    def read_all(self) -> tuple[ImageArray, LabelArray]:
        """Read the whole normalised image (C, S, P, L) and the stored label indices (S, P, L)."""
        whole = Box.whole(self.shape)
        return self.image(whole), self.labels(whole)

    def load(self) -> None:
        """Keep the decompressed case in memory, so that reading costs nothing from now on."""
        whole = Box.whole(self.shape)
        image, labels = self.stored(whole), self.labels(whole)
        self._open |= {"image": image, "labels": labels}
        if self.record.tissues:
            self._open["tissues"] = self.tissues(whole)

    def _read(self, part: str, slices: tuple[slice, ...]) -> np.ndarray:
        with self._reading(part):
            if part not in self._open:
                self._open[part] = self._opened(part)
            values: np.ndarray = self._open[part][slices]
        return values

    def _opened(self, part: str) -> Any:
        path, arrays, checksums = self._path(part), self.record.arrays, self.record.checksums
        array = open_checked(path, arrays, checksums[part]) if checksums else open_array(path, arrays)
        expected = (self.record.channels, *self.shape) if part == "image" else self.shape
        if tuple(array.shape) != expected:
            raise ValueError(f"shape {tuple(array.shape)} instead of {expected}")
        return array

    def _path(self, part: str) -> Path:
        return _path(self.folder, self.name, part, self.record.arrays)

    @contextmanager
    def _reading(self, part: str) -> Iterator[None]:
        """Turn any error that a damaged file causes into a `FormatError`."""
        try:
            yield
        except (OSError, RuntimeError, ValueError, EOFError, IndexError) as error:
            path, record = self._path(part), self._path("json")
            raise FormatError(
                f"expected the stored {part} of case {self.name} in {path}, found a damaged file "
                f"({error}); delete {record} and run `autospine preprocess` again"
            ) from error


def write_case(
    folder: Path,
    record: CaseRecord,
    prepared: Prepared,
    labels: LabelArray,
    patch_size: Shape3,
    tissues: Int32[np.ndarray, "S P L"] | None = None,
) -> StoredCase:
    """Store a case; it counts as absent until its last file is in place.

    Args:
        folder: Folder of the configuration's cases.
        record: Content of the case's JSON.
        prepared: Prepared image.
        labels: Stored indices, uint8, on the prepared image's grid.
        patch_size: Shape that training reads at a time, which decides the chunks.
        tissues: Tissue map on the prepared image's grid, whose names the record has; None for none.

    Raises:
        WorkspaceError: If there is not enough room on the disk.
        OSError, RuntimeError: If an array cannot be written for another reason.
    """
    case = StoredCase(folder=folder, record=record)
    needed = prepared.image.nbytes + labels.nbytes + SPARE_BYTES
    needed += 0 if tissues is None else tissues.nbytes
    _check_space(folder, record.name, needed)
    case._path("json").unlink(missing_ok=True)
    _remove_arrays(folder, record.name)
    try:
        checksums = {
            "image": write_array(case._path("image"), prepared.image, patch_size, record.arrays),
            "labels": write_array(case._path("labels"), labels, patch_size, record.arrays),
        }
        if tissues is not None:
            path = case._path("tissues")
            checksums["tissues"] = write_array(path, tissues, patch_size, record.arrays)
        with replacing(case._path("locations")) as temporary:
            np.save(temporary, locate(labels), allow_pickle=False)
            checksums["locations"] = _checksum(temporary.read_bytes())
        case.record = replace(record, checksums=checksums)
        _write_record(case)
    except (OSError, RuntimeError):
        _remove_arrays(folder, record.name)
        _check_space(folder, record.name, needed)  # where that was the cause, it says so better
        raise
    return case


def refresh_record(case: StoredCase, *, key: str, subject: str, site: str | None) -> None:
    """Update the key, subject and site of a case whose voxels are up to date."""
    case.record = replace(case.record, key=key, subject=subject, site=site)
    _write_record(case)


def open_case(folder: Path, name: str) -> StoredCase:
    """Open a stored case.

    Raises:
        FormatError: If it is missing, damaged or of another version.
    """
    path = path_below(folder, name).with_name(f"{name}.json")
    if not os.path.lexists(path):
        raise FormatError(
            f"expected case {name} to be preprocessed in {folder}, found no {path.name}; "
            "run `autospine preprocess`"
        )
    record = read_json(path, CaseRecord)
    if record.format_version not in (1, FORMAT_VERSION) or record.name != name:
        raise FormatError(
            f"expected case {name} of format {FORMAT_VERSION} in {path}, found case {record.name} of format "
            f"{record.format_version}; delete the file and run `autospine preprocess` again"
        )
    if record.format_version > 1 and not _is_as_written(read_text(path), record):
        raise FormatError(
            f"expected case {name} as it was stored in {path}, found a file that changed afterwards; "
            "delete it and run `autospine preprocess` again"
        )
    return StoredCase(folder=folder, record=record)


def open_cases(folder: Path, names: Sequence[str]) -> tuple[StoredCase, ...]:
    """Open the stored cases of these names, in their order.

    Raises:
        FormatError: If one is missing or damaged.
    """
    return tuple(open_case(folder, name) for name in names)


def find_case(folder: Path, name: str) -> StoredCase | None:
    """Open a stored case if it has all of its files; None if it is missing or damaged."""
    try:
        case = open_case(folder, name)
    except FormatError:
        return None
    parts = ("image", "labels", "locations", *(["tissues"] if case.record.tissues else []))
    return case if all(case._path(part).is_file() for part in parts) else None


def count_labels(labels: LabelArray) -> tuple[tuple[int, int], ...]:
    """Return (index, voxels) of every index that occurs in a uint8 label array."""
    counts = np.zeros(256, dtype=np.int64)
    for plane in labels:  # bincount takes eight bytes per voxel
        counts += np.bincount(plane.ravel(), minlength=256)
    return tuple((int(index), int(counts[index])) for index in np.flatnonzero(counts))


def locate(labels: LabelArray, limit: int = LOCATIONS_PER_LABEL) -> Int32[np.ndarray, "N 4"]:
    """Draw up to `limit` voxels of each index but 0 and `IGNORE_INDEX`, always the same ones.

    Returns:
        Rows of (index, s, p, l), ordered by index.
    """
    rows = []
    for index, box in bounding_boxes(labels).items():
        if index == IGNORE_INDEX:
            continue
        inside = labels[box] == index
        voxels = np.flatnonzero(inside)
        if len(voxels) > limit:
            voxels = np.sort(np.random.default_rng(index).choice(voxels, limit, replace=False))
        positions = [
            found + span.start
            for found, span in zip(np.unravel_index(voxels, inside.shape), box, strict=True)
        ]
        rows.append(np.column_stack([np.full(len(voxels), index), *positions]))
    return np.concatenate(rows).astype(np.int32) if rows else np.zeros((0, 4), dtype=np.int32)


def _write_record(case: StoredCase) -> None:
    """Write a case's JSON with a checksum of itself, which is computed with zeros in its own place."""
    if case.record.checksums:
        blank = replace(case.record, checksums={**case.record.checksums, "record": BLANK})
        own = _checksum(to_json(blank).encode())
        case.record = replace(case.record, checksums={**case.record.checksums, "record": own})
    write_text(case._path("json"), to_json(case.record))


def _is_as_written(text: str, record: CaseRecord) -> bool:
    """Return whether a record has its checksums, and is the text that they are of."""
    if set(record.checksums) != CHECKED | ({"tissues"} if record.tissues else set()):
        return False
    own = record.checksums["record"]
    return _checksum(text.replace(f'"{own}"', f'"{BLANK}"').encode()) == own


def _checksum(data: bytes) -> str:
    return f"{zlib.crc32(data):08x}"


def _path(folder: Path, name: str, part: str, arrays: ArrayFormat) -> Path:
    endings = {"json": ".json", "locations": "_locations.npy"}
    return path_below(folder, f"{name}{endings.get(part, f'_{part}{ENDINGS[arrays]}')}")


def _remove_arrays(folder: Path, name: str) -> None:
    """Remove the arrays of a case in any format."""
    for kind in ENDINGS:
        for part in ("image", "labels", "tissues", "locations"):
            _path(folder, name, part, kind).unlink(missing_ok=True)


def _check_space(folder: Path, name: str, needed: int) -> None:
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise WorkspaceError(
            f"expected room for case {name} in {folder}, up to {needed / 1e6:.0f} MB, "
            f"found {free / 1e6:.0f} MB; free {(needed - free) / 1e6:.0f} MB more, or as much for every case "
            "that is left, and run the command again: the cases stored so far are kept"
        )
