"""The options of a prediction, declared once: the command line and Python read them from here."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

from autospine.core.declaration import Option

FORMATS = ("nii.gz", "nii", "mha", "nrrd", "seg.nrrd", "dcm")
"""File formats that label maps can be written in, as the endings of file names."""


NO_MODEL = "none"
"""What is given instead of a model that counts vertebrae, so that none does."""


def _named(folds: Sequence[str]) -> tuple[str, ...] | None:
    """The folds that are named; None for all complete ones."""
    return None if "all" in folds else tuple(folds)


@dataclass(frozen=True, kw_only=True, slots=True)
class PredictionOptions:
    """Choices that change which networks run, where, and what is written."""

    folds: Annotated[
        tuple[str, ...] | None,
        Option(
            names=("--fold", "-f"),
            metavar="FOLD",
            read=_named,
            help="Predict with this fold: 0 to 4, full, or all. Repeat it for several folds, which predict "
            "as an ensemble; by default the folds of the cross-validation do.",
        ),
    ] = None
    """Names of the folds of every model whose networks predict together; None for all complete ones."""

    overwrite: Annotated[
        bool,
        Option(names=("--continue",), negated=True, help="Skip cases that have a label map already."),
    ] = True
    """Whether cases whose label map is there already are predicted again."""

    post_process: Annotated[
        bool,
        Option(
            names=("--postprocessing/--no-postprocessing",),
            help="Post-process label maps as the model's cross-validation has chosen: remove pieces apart "
            "from the spine and small connected components, and fill holes.",
        ),
    ] = True
    """Whether label maps go through the post-processing that the model's cross-validation chose."""

    name_vertebrae: Annotated[
        bool | None,
        Option(
            names=("--naming/--no-naming",),
            help="Name vertebrae by the most probable possible spine, where the classes are levels: split, "
            "swapped and shifted names are mended, nothing is removed, and CASE_vertebrae.json has the "
            "probability of each. By default they are, unless that cost the model's held-out cases Dice.",
        ),
    ] = None
    """Whether vertebrae are named by the most probable possible spine, where classes are levels; None if they
    are, unless that cost the model's held-out cases Dice."""

    count_with: Annotated[
        str | None,
        Option(
            names=("--count-with",),
            metavar="MODEL",
            help="Where the classes are levels, count the vertebrae and the sacrum by this model too, which "
            "has one class for all of them: `starter`, a model folder or an archive; `none` for none. Names "
            "follow from both. By default the starter counts if that gave the model's held-out cases Dice.",
        ),
    ] = None
    """Model with one class for all vertebrae, as a path or `starter`, by which vertebrae are counted before
    they are named; `none` for none, and None for the starter if that gave the held-out cases Dice."""

    region_of_interest: Annotated[
        bool,
        Option(
            names=("--roi/--no-roi",),
            help="Skip tiles that contain only air or, if a coarse model can locate the spine, lie away from "
            "it.",
        ),
    ] = True
    """Whether tiles are skipped that contain only air or, where a coarse model locates the spine, lie away
    from it."""

    mirror: Annotated[
        bool,
        Option(
            names=("--mirror",),
            help="Predict each tile a second time with left and right exchanged and average the two "
            "(test-time augmentation); this doubles the time and needs a model that was trained with "
            "mirroring.",
        ),
    ] = False
    """Whether each tile is also run with left and right exchanged, which takes twice the time."""

    ending: Annotated[
        str | None,
        Option(
            names=("--format",),
            choices=FORMATS,
            read=".{}".format,
            help="Write label maps in this format: nii.gz or nii (NIfTI), mha (MetaImage), nrrd, seg.nrrd "
            "(which 3D Slicer opens as a segmentation), or dcm (DICOM segmentations of DICOM slices); "
            "by default that of the training data.",
        ),
    ] = None
    """File format of the label maps, as the ending of their names with its dot: one of
    `autospine.io.formats.ENDINGS`, or `.dcm` for DICOM segmentations; None for that of the training data."""

    save_probabilities: Annotated[
        bool,
        Option(
            names=("--save-probabilities",),
            help="Write the probabilities of every class beside each label map.",
        ),
    ] = False
    """Whether the probabilities of every class are written beside the label maps."""

    device: Annotated[
        str,
        Option(
            names=("--device",),
            help="Run the networks on this device: auto (a GPU if there is one), cpu, cuda or cuda:N.",
        ),
    ] = "auto"
    """Device that the networks run on: `auto` (a GPU if there is one), `cpu`, `cuda` or `cuda:N`."""
