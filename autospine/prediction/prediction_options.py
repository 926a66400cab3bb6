"""The options of a prediction, declared once: the command line and Python read them from here."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True, slots=True)
class PredictionOptions:
    """Choices that change which networks run, where, and what is written."""

    folds: tuple[str, ...] | None = None
    """Names of the folds of every model whose networks predict together; None for all complete ones."""

    overwrite: bool = True
    """Whether cases whose label map is there already are predicted again."""

    post_process: bool = True
    """Whether label maps go through the post-processing that the model's cross-validation chose."""

    region_of_interest: bool = True
    """Whether tiles are skipped that contain only air or, where a coarse model locates the spine, lie away
    from it."""

    mirror: bool = False
    """Whether each tile is also run with left and right exchanged, which takes twice the time."""

    ending: str | None = None
    """File format of the label maps, as the ending of their names with its dot: one of
    `autospine.io.images.ENDINGS`, or `.dcm` for DICOM segmentations; None for that of the training data."""

    save_probabilities: bool = False
    """Whether the probabilities of every class are written beside the label maps."""

    device: str = "auto"
    """Device that the networks run on: `auto` (a GPU if there is one), `cpu`, `cuda` or `cuda:N`."""
