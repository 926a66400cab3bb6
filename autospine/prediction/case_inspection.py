"""A look at an image before it is predicted: is it what the model expects?"""

from autospine.core.modality import few_values, offset_note
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
    if modality == "CT" and (note := offset_note(volume.array[0])):
        notes.append(note)
    if count := few_values(volume.array[0]):
        notes.append(f"has {count} different value{'s' if count > 1 else ''}; is it a label map?")
    return notes
