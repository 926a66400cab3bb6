"""Files of predicted label maps, and of the names of their classes."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from autospine.core.errors import DatasetError, WorkspaceError
from autospine.core.geometry import Grid
from autospine.core.labels import LabelSpace
from autospine.core.types import LabelArray
from autospine.dataset.raw import Case
from autospine.io import dicom_seg
from autospine.io.formats import ENDINGS, NRRD_ENDINGS, is_dicom_input
from autospine.io.images import write_labels
from autospine.io.segments import segments_of, snap_descriptions
from autospine.storage.atomic import write_text
from autospine.storage.file_names import open_file

NAMES = "labels.txt"
"""Names and colours of the classes, for formats that have no place for them."""

FIRST_LINE = snap_descriptions(()).partition("\n")[0]
"""First line of such a file, by which AutoSpine recognises its own."""


@dataclass(frozen=True, kw_only=True, slots=True)
class LabelMaps:
    """Writer of the label maps of one folder."""

    folder: Path
    ending: str
    """Ending of the files' names with its dot: one of `autospine.io.formats.ENDINGS`, or that of DICOM."""

    labels: LabelSpace
    """Meaning of the label values."""

    @property
    def dicom(self) -> bool:
        """Whether the label maps are DICOM segmentations."""
        return self.ending == dicom_seg.ENDING

    def check(self, cases: Sequence[Case]) -> None:
        """Refuse cases that cannot be written in this format.

        Raises:
            DatasetError: If the format is not known, or refers to DICOM slices and there are none.
            AutospineError: If it takes highdicom, which is not installed.
            WorkspaceError: If a file that AutoSpine has not written is in the way.
        """
        if self.ending not in (*ENDINGS, dicom_seg.ENDING):
            raise DatasetError(
                f"expected a format among {', '.join((*ENDINGS, dicom_seg.ENDING))}, found {self.ending}"
            )
        if self.dicom:
            dicom_seg.require_highdicom()
            others = [case.name for case in cases if not is_dicom_input(case.images[0])]
            if others:
                raise DatasetError(
                    "expected DICOM slices as input, which DICOM segmentations refer to, found "
                    f"{', '.join(others[:3])}{' and others' if len(others) > 3 else ''} in another format; "
                    "predict with another --format"
                )
        names = self.folder / NAMES
        if self._needs_names and names.exists() and not _is_ours(names):
            raise WorkspaceError(
                f"expected to write the labels' names to {names}, found another file there; "
                "name another folder with -o"
            )

    def check_slices(self, case: Case, stored: Grid) -> None:
        """Refuse a case that was read and cannot be written in this format.

        Args:
            case: Case that the image belongs to.
            stored: Grid of the image file, `Volume.stored`.

        Raises:
            ImageError: If a DICOM segmentation cannot refer to its slices.
        """
        if self.dicom:
            dicom_seg.check_slices(case.images[0], stored, segments_of(self.labels))

    def write_names(self) -> None:
        """Write names and colours beside the label maps, if these have no place for them."""
        if self._needs_names:
            write_text(self.folder / NAMES, snap_descriptions(segments_of(self.labels)))

    def path(self, case: Case) -> Path:
        """Return the file of a case's label map."""
        return self.folder / f"{case.name}{self.ending}"

    def write(self, case: Case, labels: LabelArray, stored: Grid) -> None:
        """Write a case's label map on the grid of its image.

        Args:
            case: Case that the image belongs to.
            labels: Label values in canonical axes.
            stored: Grid of the image file, `Volume.stored`.

        Raises:
            ImageError: If it cannot be written.
        """
        segments = segments_of(self.labels)
        if self.dicom:
            dicom_seg.write_segmentation(self.path(case), labels, stored, segments, case.images[0])
        else:
            write_labels(self.path(case), labels, stored, segments)

    @property
    def _needs_names(self) -> bool:
        return not self.dicom and not self.ending.endswith(NRRD_ENDINGS)


def _is_ours(path: Path) -> bool:
    try:
        with open_file(path) as file:
            return file.readline(len(FIRST_LINE) + 2).rstrip() == FIRST_LINE.encode()
    except OSError:
        return False
