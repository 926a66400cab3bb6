"""Fingerprints without images, for planning."""

from pathlib import Path

import numpy as np

from autospine.core.labels import LabelSpace, parse_labels
from autospine.dataset.raw import Dataset
from autospine.fingerprint import (
    FORMAT_VERSION,
    CaseFacts,
    ClassFacts,
    Fingerprint,
    IntensityFacts,
    StructureFacts,
)

CT = IntensityFacts(
    cases=1,
    mean=310.0,
    std=220.0,
    percentile_00_5=-110.0,
    percentile_25=150.0,
    median=280.0,
    percentile_75=430.0,
    percentile_99_5=1150.0,
)


def plain_labels(n: int) -> LabelSpace:
    return parse_labels({"background": 0, **{f"class {i}": i for i in range(1, n + 1)}})


def dataset(labels: LabelSpace, channels=("CT",), name="Dataset001_Facts") -> Dataset:
    return Dataset(
        folder=Path(name),
        name=name,
        channels=tuple(channels),
        labels=labels,
        cases=(),
        test_cases=(),
        file_ending=".nii.gz",
    )


def structure(shape, thickness_mm) -> StructureFacts:
    return StructureFacts(voxels=int(np.prod(shape)) // 50, thickness_mm=thickness_mm)


def fingerprint(cases, thicknesses_mm, modality="CT", name="Dataset001_Facts", names=None) -> Fingerprint:
    """From (shape, spacing) of each case and the thickness of each class, None for one that never occurs.

    `modality` is that of all cases, or a list of one each.
    """
    modalities = [modality] * len(cases) if isinstance(modality, str) else modality
    return Fingerprint(
        format_version=FORMAT_VERSION,
        dataset=name,
        key="",
        cases=tuple(
            CaseFacts(
                name=f"case {i}",
                modality=modalities[i],
                site=None,
                subject=f"case {i}",
                shape=tuple(shape),
                spacing_mm=tuple(map(float, spacing)),
                structures=tuple(t and structure(shape, t) for t in thicknesses_mm),
                spine_mm=float(shape[0] * spacing[0]),
            )
            for i, (shape, spacing) in enumerate(cases)
        ),
        classes=tuple(
            ClassFacts(
                name=names[i] if names else f"class {i + 1}",
                cases=0 if t is None else len(cases),
                volume_ml=10.0,
                thickness_mm=t,
            )
            for i, t in enumerate(thicknesses_mm)
        ),
        intensities={"CT": CT} if "CT" in modalities else {},
        sites=(),
        duplicates=(),
    )
