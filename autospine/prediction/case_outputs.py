"""The files that a prediction leaves of a case: its label map and, if asked for, its probabilities."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from autospine.core.geometry import Grid
from autospine.core.labels import LabelSpace
from autospine.core.types import ChannelArray, LabelArray, Modality, Vector3
from autospine.dataset.raw import Case
from autospine.evaluation.label_statistics import LabelledIntensities, intensities_at, measure_labels
from autospine.evaluation.postprocessing import Cleaned, LabelChange, Postprocessing
from autospine.evaluation.statistics_files import CaseStatistics
from autospine.io.images import Volume
from autospine.prediction.label_maps import LabelMaps
from autospine.prediction.probabilities import ENDING, ProbabilityWriter, check_room
from autospine.prediction.vertebra_naming import (
    VertebraNaming,
    how_to_name,
    identities_file,
    write_identities,
)
from autospine.storage.atomic import replacing
from autospine.storage.file_names import escape_non_utf8
from autospine.system.described_errors import describe_failure
from autospine.system.log import get_logger
from autospine.vertebrae.label_naming import NamelessMap

logger = get_logger(__name__)

PREVIEW = "_preview.png"
"""Ending of the preview beside a label map."""

PreviewDrawer = Callable[[Path, ChannelArray, LabelArray, LabelSpace, Vector3, Modality], None]
"""Function that draws an image and its stored indices into a file, as `report.preview.write_preview` does."""


@dataclass(frozen=True, kw_only=True, slots=True)
class PredictedMap:
    """A label map as it was predicted, in memory; the image it was made of is not held any longer."""

    labels: LabelArray
    """(S, P, L) label values in canonical axes."""

    grid: Grid
    """Grid of the canonical axes."""

    stored: Grid
    """Grid of its image file."""

    image: LabelledIntensities | None
    """Intensities of the first channel where there are labels; None if there are none."""

    modality: Modality
    """Modality that it was predicted as."""

    shown: ChannelArray | None = None
    """First channel of the image, where a preview is drawn of it."""

    nameless: NamelessMap | None = None
    """What a second model has found, by which vertebrae are counted; None for none."""

    @classmethod
    def of(
        cls,
        labels: LabelArray,
        volume: Volume,
        modality: Modality,
        nameless: NamelessMap | None = None,
        *,
        previewed: bool = False,
    ) -> "PredictedMap":
        """Return the label map of an image, with the image where a preview is drawn."""
        return cls(
            modality=modality,
            shown=volume.array[0] if previewed else None,
            labels=labels,
            grid=volume.grid,
            stored=volume.stored,
            image=intensities_at(labels, volume.array[0]),
            nameless=nameless,
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class WrittenMap:
    """Findings about a label map that was written."""

    labelled: bool
    """Whether it has any label but background."""

    changes: tuple[LabelChange, ...]
    """Changes by post-processing."""

    renamed: tuple[LabelChange, ...]
    """Vertebrae that were given another name."""

    naming_error: str | None
    """Why the vertebrae could not be named; None if they were, or were not to be."""

    statistics: CaseStatistics
    """Numbers about each class."""


@dataclass(frozen=True, kw_only=True, slots=True)
class CaseOutputs:
    """Writer of the files of each case into one folder."""

    maps: LabelMaps
    """Folder and file format of the label maps."""

    post_processing: Postprocessing | None
    """Post-processing that label maps go through before they are written; None for nothing."""

    naming: VertebraNaming | None
    """Names the vertebrae of each label map after that; None where no vertebrae have levels."""

    save_probabilities: bool
    """Whether probabilities are written beside the label maps."""

    draw_preview: PreviewDrawer | None = None
    """Draws the preview of each case beside its label map; None for no previews."""

    def label_map(self, case: Case) -> Path:
        """Return the file of a case's label map."""
        return self.maps.path(case)

    def probabilities(self, case: Case) -> Path:
        """Return the file of a case's probabilities."""
        return self.maps.folder / f"{case.name}{ENDING}"

    def preview(self, case: Case) -> Path:
        """Return the file of a case's preview."""
        return self.maps.folder / f"{case.name}{PREVIEW}"

    def are_there(self, case: Case) -> bool:
        """Return whether all files that would be written of a case are there already."""
        wanted = [self.label_map(case)]
        if self.save_probabilities:
            wanted.append(self.probabilities(case))
        if self.draw_preview is not None:
            wanted.append(self.preview(case))
        if self.naming is not None:
            wanted.append(identities_file(self.maps.folder, case.name))
        return all(path.is_file() for path in wanted)

    @contextmanager
    def open_probabilities(self, case: Case, volume: Volume) -> Iterator[ProbabilityWriter | None]:
        """Open a new file of probabilities, which takes its name when the context ends without an error.

        Yields:
            Its writer, or None if no probabilities are asked for.

        Raises:
            WorkspaceError: If the disk has no room for them.
        """
        if not self.save_probabilities:
            yield None
            return
        target, labels = self.probabilities(case), self.maps.labels
        check_room(target, labels, volume.grid.shape)
        with replacing(target) as temporary:
            yield ProbabilityWriter(temporary, labels, volume.stored)

    def write(self, case: Case, predicted: PredictedMap, probabilities: ExitStack) -> WrittenMap:
        """Post-process a label map, write it, and measure what it shows.

        Args:
            case: Case that was predicted.
            predicted: Its label map.
            probabilities: Closed once the label map is there, so that its probabilities take their name.
        """
        with probabilities:
            final, changes = Cleaned(labels=predicted.labels, changes=())
            if self.post_processing is not None:
                final, changes = self.post_processing.apply(predicted.labels, predicted.grid.spacing_mm)
            final, renamed, naming_error = self._named(case, final, predicted)
            space = self.maps.labels
            statistics = measure_labels(space.encode(final), space, predicted.grid, predicted.image)
            self.maps.write(case, final, predicted.stored)
            self._preview(case, space.encode(final), predicted)
            if not self.save_probabilities:  # earlier ones do not belong to this label map
                self.probabilities(case).unlink(missing_ok=True)
        return WrittenMap(
            labelled=any(each.voxels for each in statistics),
            changes=changes,
            renamed=renamed,
            naming_error=naming_error,
            statistics=statistics,
        )

    def _named(
        self, case: Case, labels: LabelArray, predicted: PredictedMap
    ) -> tuple[LabelArray, tuple[LabelChange, ...], str | None]:
        """Name the vertebrae of a label map, and write the file of their names.

        Returns:
            The map, its changes, and why the vertebrae could not be named, where the map stays as it is.
        """
        path = identities_file(self.maps.folder, case.name)
        if self.naming is None:
            path.unlink(missing_ok=True)  # earlier names do not belong to this label map
            return labels, (), None
        try:
            named = self.naming.apply(case.name, labels, predicted.grid, predicted.nameless)
            write_identities(path, named.identities)
        except Exception as error:  # names that cannot be found cost no label map
            path.unlink(missing_ok=True)
            reason = escape_non_utf8(describe_failure(error))  # the record is UTF-8
            logger.warning(
                "%s: its vertebrae cannot be named (%s); its label map keeps the classes as predicted: %s",
                case.name,
                reason,
                how_to_name(self.label_map(case)),
            )
            return labels, (), reason
        return named.labels, named.changes, None

    def _preview(self, case: Case, indices: LabelArray, predicted: PredictedMap) -> None:
        """Draw a case's preview if one is asked for, else remove that of an earlier label map."""
        path = self.preview(case)
        if self.draw_preview is None or predicted.shown is None:
            path.unlink(missing_ok=True)
            return
        try:
            self.draw_preview(
                path,
                predicted.shown,
                indices,
                self.maps.labels,
                predicted.grid.spacing_mm,
                predicted.modality,
            )
        except Exception as error:  # a picture that cannot be drawn costs no label map
            logger.warning("%s: its preview cannot be drawn (%s)", case.name, error or type(error).__name__)
