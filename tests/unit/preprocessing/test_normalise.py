import numpy as np
import pytest

from autospine.plan import Normalisation
from autospine.preprocessing.normalise import intensity_transform

CT = Normalisation(scope="dataset", lower=-200, upper=1000, mean=100, std=250)
MR = Normalisation(scope="image", lower=0.005, upper=0.995, mean=0, std=1)


def test_ct_uses_the_datasets_numbers():
    image = np.asarray([-1024, 100, 350, 3000], dtype=np.float32).reshape(1, 4, 1, 1)
    transform = intensity_transform(image, CT)
    np.testing.assert_allclose(transform.apply(image).ravel(), [-1.2, 0, 1, 3.6], rtol=1e-6)
    assert transform.background == pytest.approx((-1.2,))


@pytest.mark.parametrize("scale", [1.0, 37.0])
def test_mr_does_not_depend_on_the_scanners_scale(scale):
    rng = np.random.default_rng(0)
    image = np.abs(rng.normal(0, 3, (2, 30, 30, 30)))
    image[:, 8:22, 8:22, 8:22] = rng.normal(300, 60, (2, 14, 14, 14))
    image = (image * scale).astype(np.float32)
    transform = intensity_transform(image, MR)
    normal = transform.apply(image.copy())
    tissue = normal[:, 8:22, 8:22, 8:22]
    assert tissue.mean() == pytest.approx(0, abs=0.05)
    assert tissue.std() == pytest.approx(1, abs=0.05)
    assert normal[:, :5].max() < -3
    assert transform.upper[0] < image.max()


def test_channels_are_normalised_apart():
    image = np.random.default_rng(0).normal(size=(2, 9, 9, 9)).astype(np.float32)
    image[1] = image[1] * 50 + 1000
    transform = intensity_transform(image, MR)
    assert transform.mean[1] > 900 > transform.mean[0]


def test_a_constant_mr_image_stays_finite():
    image = np.full((1, 4, 4, 4), 7, dtype=np.float32)
    assert np.isfinite(intensity_transform(image, MR).apply(image)).all()
