"""The inspection of an image before it is predicted: is it what the model expects?"""

from autospine.core.geometry import tilt_note
from autospine.core.modality import check_values
from autospine.core.types import Modality
from autospine.dataset.raw import Case
from autospine.io.images import Volume


def find_oddities(case: Case, volume: Volume, modality: Modality) -> list[str]:
    """Return what was repaired, decided or is unusual about an image, for the log and the record.

    Args:
        case: Case that the image belongs to.
        volume: The image.
        modality: Modality that it is predicted as.
    """
    notes = list(volume.notes)
    if case.modality is None:
        notes.append(f"taken for {modality} by its intensities")
    if tilted := tilt_note(volume.grid):
        notes.append(tilted)
    return [*notes, *check_values(volume.array, modality)]
