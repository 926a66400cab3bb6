from itertools import product

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from autospine.preprocessing.resample import (
    CUBIC,
    LINEAR,
    LinearAxis,
    bounding_boxes,
    image_orders,
    resample,
    resample_labels,
    target_shape,
)

shapes = st.tuples(st.integers(1, 24), st.integers(1, 24), st.integers(1, 24))


@settings(max_examples=40, deadline=None)
@given(shapes, shapes, st.sampled_from([0, 1, 3]))
def test_equals_scipy_zoom(shape, target, order):
    volume = np.random.default_rng(0).normal(size=shape)
    zoom = [new / old for new, old in zip(target, shape, strict=True)]
    expected = ndimage.zoom(volume, zoom, order=order, mode="nearest", grid_mode=True)
    found = resample(volume[None].astype(np.float32), target, (order,) * 3)
    assert found.shape == (1, *target)
    if order:
        np.testing.assert_allclose(found[0], expected, atol=2e-5)
    else:  # rounding decides ties in two ways
        assert np.mean(found[0] == expected.astype(np.float32)) > 0.8 or min(shape) < 3


@settings(max_examples=20, deadline=None)
@given(shapes, shapes, st.tuples(*[st.sampled_from([0, 1, 3])] * 3))
def test_a_constant_stays_constant(shape, target, orders):
    image = np.full((2, *shape), 37.5, dtype=np.float32)
    np.testing.assert_allclose(resample(image, target, orders), 37.5, rtol=1e-5)


def test_same_shape_is_the_identity():
    image = np.random.default_rng(0).normal(size=(1, 5, 6, 7)).astype(np.float32)
    labels = np.arange(210, dtype=np.uint8).reshape(5, 6, 7)
    assert resample(image, (5, 6, 7)) is image
    assert resample_labels(labels, (5, 6, 7)) is labels


def test_a_linear_ramp_survives_there_and_back():
    ramp = np.arange(40, dtype=np.float32)[:, None, None] * np.ones((1, 40, 30, 20), dtype=np.float32)
    back = resample(resample(ramp, (57, 30, 20)), (40, 30, 20))
    np.testing.assert_allclose(back[:, 8:-8], ramp[:, 8:-8], atol=1e-3)


def test_orders_are_linear_across_thick_slices():
    assert image_orders((1.0, 1.0, 1.0), (1.5, 1.5, 1.5)) == CUBIC
    assert image_orders((4.0, 0.8, 0.8), (1.5, 1.5, 1.5)) == (1, 3, 3)
    assert image_orders((0.7, 0.7, 3.3), (1.0, 1.0, 1.0)) == (3, 3, 1)
    assert image_orders((1.0, 1.0, 1.0), (1.0, 1.0, 4.0)) == (3, 3, 1)
    assert image_orders((4.0, 4.0, 1.0), (1.0, 1.0, 1.0)) == CUBIC


def test_target_shape_covers_the_field_of_view():
    assert target_shape((100, 99, 1), (0.8, 1.0, 1.0), (1.5, 1.5, 4.0)) == (53, 66, 1)


@settings(max_examples=25, deadline=None)
@given(shapes, shapes, st.integers(0, 5))
def test_labels_never_invent_values(shape, target, n):
    labels = np.random.default_rng(n).choice(np.asarray([0, 3, 7, 255][: n + 1], dtype=np.uint8), shape)
    found = resample_labels(labels, target)
    assert found.dtype == np.uint8
    assert found.shape == target
    assert set(np.unique(found)) <= set(np.unique(labels))


def test_labels_are_the_largest_indicator():
    labels = ndimage.zoom(np.random.default_rng(0).integers(0, 4, (8, 8, 8)), 4, order=0).astype(np.uint8)
    target = (21, 39, 45)
    indicators = np.stack([labels == i for i in range(4)]).astype(np.float32)
    expected = resample(indicators, target, LINEAR)
    found = resample_labels(labels, target)
    won = np.take_along_axis(expected, found[None].astype(int), 0)[0]
    assert np.all(won >= expected.max(0) - 0.01)
    clear = np.diff(np.sort(expected, axis=0)[-2:], axis=0)[0] > 0.01
    np.testing.assert_array_equal(found[clear], expected.argmax(0)[clear])


def test_halving_keeps_volumes():
    labels = np.zeros((40, 40, 40), dtype=np.uint8)
    for i, (offset, width) in enumerate(product(range(2), (3, 5, 7)), start=1):
        labels[i * 5 : i * 5 + 4, 5 + offset : 5 + offset + width, 4:36] = i
    found = resample_labels(labels, (20, 20, 20))
    before, after = (np.bincount(x.ravel(), minlength=7)[1:].sum() for x in (labels, found))
    assert after * 8 == pytest.approx(before, rel=0.1)


@pytest.mark.parametrize("spacing", [(0.8, 0.8, 0.8), (1.0, 1.0, 1.0), (2.0, 1.0, 1.0)])
def test_labels_there_and_back_agree(spacing):
    shape = tuple(round(100 / d) for d in spacing)
    s, p, left = np.meshgrid(
        *[(np.arange(n) + 0.5) * d for n, d in zip(shape, spacing, strict=True)], indexing="ij"
    )

    def ball(centre, radii):
        return sum(((x - c) / r) ** 2 for x, c, r in zip((s, p, left), centre, radii, strict=True)) < 1

    body = ball((50, 30, 50), (15, 17, 24)) | ball((50, 62, 50), (10, 18, 6)) | ball((50, 48, 50), (9, 6, 34))
    labels = body.astype(np.uint8)
    for turned in (labels, labels[::-1], labels[:, ::-1, ::-1]):
        coarse = resample_labels(np.ascontiguousarray(turned), target_shape(shape, spacing, (1.5, 1.5, 1.5)))
        back = resample_labels(coarse, shape)
        assert 2 * np.sum(back & turned) / (back.sum() + turned.sum()) > 0.97


@given(st.integers(1, 40), st.integers(1, 40), st.integers(1, 9))
@settings(deadline=None)
def test_linear_outputs_are_ready_with_their_last_input(n_in, n_out, step):
    values = np.random.default_rng(n_in).random((1, n_in, 2, 3), dtype=np.float32)
    expected = resample(values, (n_out, 2, 3), LINEAR)[0]
    axis, done = LinearAxis(n_in, n_out), 0
    for start in range(0, n_in, step):
        inputs = slice(start, min(start + step, n_in))
        outputs, first = axis.ready(inputs), max(0, start - 1)
        assert outputs.start == done
        part = torch.from_numpy(values[0, first : inputs.stop])
        np.testing.assert_allclose(axis.apply(part, 0, first, outputs), expected[outputs], atol=1e-6)
        done = outputs.stop
    assert done == n_out


def test_bounding_boxes():
    labels = np.zeros((6, 7, 8), dtype=np.uint8)
    labels[1:3, 2, 4:8] = 9
    labels[5, 6, 0] = 255
    assert bounding_boxes(labels) == {
        9: (slice(1, 3), slice(2, 3), slice(4, 8)),
        255: (slice(5, 6), slice(6, 7), slice(0, 1)),
    }


def test_parts_of_a_matrix_are_moved_to_a_device_once_and_found_without_asking_it(monkeypatch):
    """On the meta device, where asking for values would fail."""
    axis, moved = LinearAxis(40, 64), []
    original = torch.Tensor.to
    monkeypatch.setattr(torch.Tensor, "to", lambda *a, **k: moved.append(a) or original(*a, **k))
    for _ in range(5):
        out = axis.apply(torch.empty(30, 4, 5, device="meta"), 0, 5, slice(10, 40))
    assert out.shape == (30, 4, 5)
    assert len(moved) == 1


def test_parts_of_a_matrix_give_the_same_on_any_axis():
    axis, values = LinearAxis(40, 90), torch.rand(40, 40, 40)
    whole = [axis.apply(values, n, 0, slice(0, 90)) for n in range(3)]
    for outputs in (slice(5, 50), slice(50, 90), slice(5, 50)):
        for n in range(3):
            part = axis.apply(values, n, 0, outputs)
            torch.testing.assert_close(part, whole[n].narrow(n, outputs.start, outputs.stop - outputs.start))
