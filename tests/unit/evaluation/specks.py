"""Two vertebrae and a canal, and predictions of them with stray voxels."""

import numpy as np

from autospine.core.labels import parse_labels

LABELS = parse_labels({"background": 0, "vertebra": 300, "canal": 7, "ignore": 9})
SPACING = (2.0, 1.0, 1.0)
SHAPE = (20, 16, 16)


def reference() -> np.ndarray:
    """Two vertebrae before a canal, in the integers of the dataset."""
    labels = np.zeros(SHAPE, dtype=np.int32)
    labels[2:8, 2:8, 4:12] = 300
    labels[11:17, 2:8, 4:12] = 300
    labels[:, 10:14, 6:10] = 7
    return labels


def with_specks(labels: np.ndarray, integer: int, seed: int) -> np.ndarray:
    """A few stray voxels of an integer at the rim of the volume, where nothing else is."""
    rng = np.random.default_rng(seed)
    spoilt = labels.copy()
    spoilt[rng.choice(np.arange(0, SHAPE[0], 2), 6, replace=False), 15, 0:3] = integer
    return spoilt
