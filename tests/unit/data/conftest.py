"""Stored cases of known content, written without raw files."""

from collections.abc import Callable
from pathlib import Path

import makers
import numpy as np
import pytest

from autospine.core.geometry import Box
from autospine.plan import Configuration
from autospine.preprocessing.normalise import IntensityTransform
from autospine.preprocessing.prepare import Encoding, Prepared
from autospine.preprocessing.store import FORMAT_VERSION, CaseRecord, StoredCase, count_labels, write_case


@pytest.fixture
def store(tmp_path: Path) -> Callable[..., StoredCase]:
    def write(
        name: str,
        image: np.ndarray,
        labels: np.ndarray,
        tissues: np.ndarray | None = None,
        names: dict[int, str] | None = None,
    ) -> StoredCase:
        transform = IntensityTransform(lower=(-1000.0,), upper=(1000.0,), mean=(0.0,), std=(100.0,))
        encoding = Encoding(scale=(1.0,), offset=(0.0,))
        crop = Box(start=(0, 0, 0), stop=labels.shape)
        prepared = Prepared(
            image=image[None].astype(np.int16),
            encoding=encoding,
            transform=transform,
            crop=crop,
            source_shape=labels.shape,
            spacing_mm=(1.5, 1.5, 1.5),
        )
        record = CaseRecord(
            format_version=FORMAT_VERSION,
            name=name,
            modality="CT",
            subject=name,
            site=None,
            source_shape=labels.shape,
            source_spacing_mm=(1.5, 1.5, 1.5),
            crop=crop,
            shape=labels.shape,
            channels=1,
            spacing_mm=(1.5, 1.5, 1.5),
            encoding=encoding,
            transform=transform,
            label_voxels=count_labels(labels),
            repairs=(),
            key="",
            tissues=names or {},
        )
        return write_case(tmp_path, record, prepared, labels, (16, 16, 16), tissues)

    return write


@pytest.fixture
def cases(store) -> tuple[StoredCase, ...]:
    """A large case with labels 1 and 2, a small one with label 3, and one without any."""
    rng = np.random.default_rng(0)
    stored = []
    for name, shape in (("large", (40, 44, 48)), ("small", (10, 30, 12)), ("empty", (30, 30, 30))):
        labels = np.zeros(shape, dtype=np.uint8)
        if name == "large":
            labels[20:28, 10:20, 10:20] = 1
            labels[20:28, 10:20, 28:38] = 2
        elif name == "small":
            labels[4, 15, 6] = 3
        stored.append(store(name, rng.integers(-500, 500, shape), labels))
    return tuple(stored)


@pytest.fixture
def configure() -> Callable[..., Configuration]:
    def make(patch_size=(16, 16, 16), fraction=0.5, batch_size=2, **augmentation) -> Configuration:
        strength = {
            "rotation_deg": (10.0, 10.0, 15.0),
            "scale": (0.85, 1.18),
            "elastic_mm": 2.0,
            "spatial_probability": 0.5,
            "intensity_probability": 0.5,
            "mirror_axes": (2,),
            "mirror_pairs": ((1, 2),),
        }
        return makers.configuration(
            patch_size=patch_size,
            network=makers.network_plan(strides=((1, 1, 1),) * 5, fusion=None, attention="plain"),
            training={"batch_size": batch_size, "oversample_foreground_fraction": fraction},
            augmentation=strength | augmentation,
        )

    return make


@pytest.fixture
def plain(configure) -> Callable[..., Configuration]:
    """Augmentation whose every strength is zero."""

    def make(**changes) -> Configuration:
        off = {
            "spatial_probability": 0.0,
            "intensity_probability": 0.0,
            "mirror_axes": (),
            "mirror_pairs": (),
        }
        return configure(**(off | changes))

    return make
