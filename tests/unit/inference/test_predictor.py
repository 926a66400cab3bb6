import weakref
from contextlib import suppress
from dataclasses import replace

import makers
import numpy as np
import pytest
import torch
import whole
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from autospine.core.errors import ModelError
from autospine.core.labels import parse_labels
from autospine.inference import case_memory, to_native
from autospine.inference import score_bands as bands_module
from autospine.inference.ensemble import ready_networks
from autospine.inference.predictor import Predictor
from autospine.io.images import Volume

LABELS = parse_labels({"background": 0, "bone": 300, "canal": 7})
CPU, GPU = torch.device("cpu"), torch.device("cuda")
HU = {"background": -200, "bone": 600, "canal": 50}


class Thresholds(torch.nn.Module):
    """Knows the classes by their normalised intensity: (HU - 100) / 200."""

    def __init__(self, order=("background", "bone", "canal")) -> None:
        super().__init__()
        self.centres = torch.tensor([(HU[name] - 100) / 200 for name in order])

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return -10 * (image - self.centres.view(1, -1, 1, 1, 1)).abs()


class Inside(torch.nn.Module):
    """Regions: everything but background, and bone alone."""

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return torch.cat([10 * (image + 1), 10 * (image - 1)], dim=1)


def phantom(shape=(20, 18, 22), spacing_mm=(1.5, 1.5, 1.5)) -> tuple[Volume, np.ndarray]:
    """A CT and its labels as on disk."""
    indices = makers.column(shape)
    image = np.choose(indices, [HU["background"], HU["bone"], HU["canal"]]).astype(np.int16)
    grid = makers.grid(shape, spacing_mm)
    return Volume(array=image[None], grid=grid, stored=grid), np.choose(indices, [0, 300, 7])


def predictor(network, labels=LABELS, **changes) -> Predictor:
    plan = makers.plan(makers.configuration(**changes), labels=labels)
    networks = ready_networks([network], CPU)
    return Predictor(plan=plan, configuration=plan.configurations[0], networks=networks, device=CPU)


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_labels_come_back_on_the_volumes_grid(precision):
    volume, labels = phantom()
    changes = {"training": {"precision": precision}}
    predicted = predictor(Thresholds(), **changes).predict(volume, "CT")
    assert predicted.dtype == np.uint16
    np.testing.assert_array_equal(predicted, labels)


def test_another_spacing_is_resampled_there_and_back():
    _, coarse = phantom()
    labels = coarse.repeat(3, 0).repeat(2, 1).repeat(2, 2)
    grid = makers.grid(labels.shape, (0.6, 0.8, 0.7))
    # Halfway between background and bone lies the canal, which would take the blurred rim.
    bone = np.where(labels == 300, HU["bone"], HU["background"]).astype(np.int16)
    space = parse_labels({"background": 0, "bone": 300})
    network = Thresholds(("background", "bone"))
    volume = Volume(array=bone[None], grid=grid, stored=grid)
    predicted = predictor(network, space).predict(volume, "CT")
    assert predicted.shape == labels.shape
    overlap = ((predicted == 300) & (labels == 300)).sum()
    assert 2 * overlap / ((predicted == 300).sum() + (labels == 300).sum()) > 0.9


def test_padding_is_background_and_costs_nothing():
    volume, labels = phantom()
    array = np.pad(volume.array, [(0, 0), (9, 3), (0, 5), (7, 0)], constant_values=-1024)
    grid = makers.grid(array.shape[1:], (1.5, 1.5, 1.5))
    predicted = predictor(Thresholds()).predict(Volume(array=array, grid=grid, stored=grid), "CT")
    np.testing.assert_array_equal(predicted, np.pad(labels, [(9, 3), (0, 5), (7, 0)]))


def test_regions_paint_over_each_other():
    labels = parse_labels({"whole": [300, 7], "bone": [300]}, regions_class_order=(7, 300))
    volume, expected = phantom()
    np.testing.assert_array_equal(predictor(Inside(), labels).predict(volume, "CT"), expected)


def test_magnetic_resonance_is_normalised_by_the_image_itself():
    seen = []

    class Remember(Thresholds):
        def forward(self, image: torch.Tensor) -> torch.Tensor:
            seen.append(image)
            return super().forward(image)

    volume, _ = phantom()
    scaled = replace(volume, array=(volume.array + 600).astype(np.int16) * 3)
    for case in (volume, scaled):
        predictor(Remember()).predict(case, "MR")
    half = len(seen) // 2
    for a, b in zip(seen[:half], seen[half:], strict=True):
        torch.testing.assert_close(a, b, atol=1e-3, rtol=1e-3)


def test_a_wrong_number_of_channels_is_refused():
    volume, _ = phantom()
    two = replace(volume, array=np.repeat(volume.array, 2, axis=0))
    with pytest.raises(ModelError, match=r"expected 1 channel \(image\), found 2; give each channel once"):
        predictor(Thresholds()).predict(two, "CT")


class Waves(torch.nn.Module):
    """Scores that depend on the place in the tile and on the intensity."""

    def __init__(self, classes: int, phase: float) -> None:
        super().__init__()
        self.classes, self.phase = classes, phase

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        axes = [torch.linspace(0, 3 + axis, n) for axis, n in enumerate(image.shape[2:])]
        place = sum(torch.meshgrid(*axes, indexing="ij"))
        waves = [torch.sin(place * (k + 1) + self.phase) + image[:, 0] * 0.3 * k for k in range(self.classes)]
        return 2 * torch.stack(waves, dim=1)


def background_of(labels, shape) -> np.ndarray:
    scores = np.zeros((labels.n_channels, *shape), dtype=np.float32)
    scores[0] = not labels.regions
    return scores


@pytest.mark.parametrize("labels", [LABELS, parse_labels({"a": [300, 7], "b": [7]}, (300, 7))])
@given(
    st.tuples(*[st.integers(3, 40)] * 3),
    st.tuples(*[st.sampled_from([0.8, 1.5, 2.1])] * 3),
    st.tuples(*[st.sampled_from([16, 32])] * 3),
    st.tuples(*[st.integers(0, 6)] * 6),
)
@settings(deadline=None, max_examples=15)
def test_streaming_is_the_same_as_holding_everything(labels, shape, spacing_mm, patch, margins):
    image = np.random.default_rng(1).integers(-300, 900, shape).astype(np.int16)
    around = [margins[:2], margins[2:4], margins[4:]]
    array = np.pad(image, around, constant_values=-1024)[None]
    grid = makers.grid(array.shape[1:], spacing_mm)
    volume = Volume(array=array, grid=grid, stored=grid)
    several = predictor(Waves(labels.n_channels, 0.0), labels, patch_size=patch)
    networks = [Waves(labels.n_channels, 0.3 * fold) for fold in range(3)]
    several = replace(several, networks=networks, region_of_interest=False)
    expected = whole.scores(several, volume)
    bands = list(several.score_bands(volume, "CT"))
    assert [rows.start for rows, _ in bands] == [0, *(rows.stop for rows, _ in bands[:-1])]
    assert bands[-1][0].stop == grid.shape[0]
    found = np.concatenate([scores for _, scores in bands], axis=1)
    np.testing.assert_allclose(found, expected, atol=1e-5)
    kept, starts = background_of(labels, grid.shape), [0]

    def keep(box, channel, scores):
        kept[channel, *box.slices] = scores
        starts.append(box.start[0])

    predicted = several.predict(volume, "CT", score_sink=keep)
    np.testing.assert_allclose(kept, expected, atol=1e-5)
    assert starts == sorted(starts)
    np.testing.assert_array_equal(predicted, several.predict(volume, "CT"))
    if labels.regions:
        sure = (np.abs(expected - 0.5) > 1e-5).all(0)
        wanted = labels.decode(expected > 0.5)
    else:
        first, second = np.sort(expected, axis=0)[[-1, -2]]
        sure, wanted = first - second > 1e-5, labels.decode(expected.argmax(0))
    assert (predicted == wanted)[sure].all()


def test_bands_of_scores_are_small(monkeypatch):
    volume, _ = phantom()
    monkeypatch.setattr(bands_module, "BAND_BYTES", 2 * 4 * 3 * 18 * 22)
    bands = [rows for rows, _ in predictor(Thresholds()).score_bands(volume, "CT")]
    assert {rows.stop - rows.start for rows in bands} <= {1, 2}
    assert sum(rows.stop - rows.start for rows in bands) == 20


class Counting(Thresholds):
    """Counts the tiles that it has seen."""

    seen = 0

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        self.seen += 1
        return super().forward(image)


def in_air() -> tuple[Volume, np.ndarray]:
    """A phantom in a large field of view of noisy air."""
    volume, labels = phantom()
    margins = [(40, 40), (30, 40), (0, 60)]
    array = np.pad(volume.array[0], margins, constant_values=-1000)
    array[labels_free := np.pad(labels == 0, margins, constant_values=True)] = -1000
    array = array + np.random.default_rng(0).integers(-9, 9, array.shape) * labels_free
    grid = makers.grid(array.shape, (1.5, 1.5, 1.5))
    return Volume(array=array.astype(np.int16)[None], grid=grid, stored=grid), np.pad(labels, margins)


@pytest.mark.parametrize("spacing_mm", [(1.5, 1.5, 1.5), (1.2, 1.5, 2.0)])
def test_tiles_of_air_are_not_run_and_the_labels_are_the_same(spacing_mm):
    volume, labels = in_air()
    some, every = Counting(), Counting()
    some_tiles = predictor(some, spacing_mm=spacing_mm)
    full = replace(predictor(every, spacing_mm=spacing_mm), region_of_interest=False)
    work, whole_work = some_tiles.prepare(volume, "CT"), full.prepare(volume, "CT")
    assert some.seen == 1, "a tile of air, to see whether the network finds something there"
    predicted = some_tiles.predict(volume, "CT")
    np.testing.assert_array_equal(predicted, full.predict(volume, "CT"))
    assert some.seen == 2 + len(work.run) < every.seen / 2
    assert every.seen == len(whole_work.run) == work.tiles
    assert (work.region, whole_work.region) == ("body", "everything")
    if spacing_mm == (1.5, 1.5, 1.5):
        np.testing.assert_array_equal(predicted, labels)
    bands = np.concatenate([scores for _, scores in some_tiles.score_bands(volume, "CT")], axis=1)
    np.testing.assert_allclose(bands.sum(0), 1, atol=1e-5)
    np.testing.assert_array_equal(LABELS.decode(bands.argmax(0)), predicted)


def test_in_a_volume_of_nothing_but_air_no_tile_is_left_out():
    """The threshold may not suit such an image."""
    grid = makers.grid((30, 20, 20), (1.5, 1.5, 1.5))
    array = np.random.default_rng(0).integers(-1010, -990, (1, 30, 20, 20)).astype(np.int16)
    volume, network = Volume(array=array, grid=grid, stored=grid), Counting()
    assert not predictor(network).predict(volume, "CT").any()
    work = predictor(network).prepare(volume, "CT")
    assert network.seen == len(work.run) == work.tiles


class Leaking(Waves):
    """Is certain of background in a tile of air alone, and labels air and body alike in every other tile."""

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        scores = super().forward(image)
        background = torch.full_like(scores, -100.0)
        if self.classes > 2:
            background[:, 0] = 100.0
        return torch.where((image <= -1.49).all(), background, scores)


@pytest.mark.parametrize("labels", [LABELS, parse_labels({"a": [300, 7], "b": [7]}, (300, 7))])
@given(
    st.tuples(*[st.integers(30, 50)] * 3),
    st.tuples(*[st.sampled_from([1.2, 1.5, 2.1])] * 3),
    st.tuples(*[st.sampled_from([16, 32])] * 3),
    st.sampled_from([0.5, 0.75, 1.0]),
    st.data(),
)
@settings(deadline=None, max_examples=12)
def test_leaving_out_air_changes_no_bit(labels, shape, spacing_mm, patch, step_size, data):
    """Also where tiles that are run label the air that they share with tiles that are not."""
    array = np.full(shape, -1000, dtype=np.int16)
    start = [data.draw(st.integers(0, n - 1)) for n in shape]
    stop = [data.draw(st.integers(a + 1, min(n, a + 12))) for a, n in zip(start, shape, strict=True)]
    body = tuple(slice(a, b) for a, b in zip(start, stop, strict=True))
    array[body] = np.random.default_rng(1).integers(-300, 900, array[body].shape)
    array[0, 0, 0], array[-1, -1, -1] = -1001, -1002  # else the air would be cropped
    grid = makers.grid(shape, spacing_mm)
    volume = Volume(array=array[None], grid=grid, stored=grid)
    some = predictor(Leaking(labels.n_channels, 0.0), labels, patch_size=patch)
    some = replace(some, step_size=step_size)
    every = replace(some, region_of_interest=False)
    work = some.prepare(volume, "CT")
    assume(len(work.run) < work.tiles)
    np.testing.assert_array_equal(some.predict(volume, "CT"), every.predict(volume, "CT"))
    streams = (one.score_bands(volume, "CT") for one in (some, every))
    scores = (np.concatenate([band for _, band in stream], axis=1) for stream in streams)
    np.testing.assert_array_equal(*scores)


def test_where_the_network_finds_something_in_air_no_tile_is_left_out():
    class Everywhere(Thresholds):
        def forward(self, image: torch.Tensor) -> torch.Tensor:
            return super().forward(image).roll(1, dims=1)

    volume, _ = in_air()
    some = predictor(Everywhere())
    every = replace(some, region_of_interest=False)
    work = some.prepare(volume, "CT")
    assert len(work.run) == work.tiles
    np.testing.assert_array_equal(some.predict(volume, "CT"), every.predict(volume, "CT"))


def test_tiles_that_reach_the_body_are_run_on_the_grid_of_the_whole_image():
    """Of four tiles that all but cover the image, none is air."""
    array = np.full((70, 70, 24), -1000, dtype=np.int16)
    array[0, 0, 0], array[-1, -1, -1] = -1001, -1002
    array[20:64, 20:64, 4:20] = np.random.default_rng(0).integers(-150, 900, (44, 44, 16))
    grid = makers.grid(array.shape, (1.5, 1.5, 1.5))
    volume = Volume(array=array[None], grid=grid, stored=grid)
    some = predictor(Waves(3, 0.0), patch_size=(64, 64, 24))
    work = some.prepare(volume, "CT")
    assert (work.region, len(work.run), work.tiles) == ("body", 4, 4)
    every = replace(some, region_of_interest=False)
    np.testing.assert_array_equal(some.predict(volume, "CT"), every.predict(volume, "CT"))


def test_tiles_far_from_the_spine_are_not_run():
    small, _ = phantom((40, 40, 40))
    array = np.pad(small.array, [(0, 0), (0, 0), (0, 0), (0, 100)], constant_values=HU["background"])
    array += np.random.default_rng(0).integers(-9, 9, array.shape).astype(np.int16)
    grid = makers.grid(array.shape[1:], (1.5, 1.5, 1.5))
    far = Volume(array=array, grid=grid, stored=grid)
    coarse, fine = Counting(), Counting()
    localizer = predictor(coarse, spacing_mm=(3.0, 3.0, 3.0))
    guided = replace(predictor(fine), localizer=localizer)
    work = guided.prepare(far, "CT")
    assert work.region == "spine"
    assert coarse.seen > 0
    assert len(work.run) < work.tiles
    np.testing.assert_array_equal(guided.predict(far, "CT"), predictor(fine).predict(far, "CT"))


def wide(rows: int, offset: int) -> Volume:
    """A CT 270 mm wide, with a spine in its first rows, away from its middle."""
    small, _ = phantom((rows, 40, 40))
    beside = [(0, 0), (0, 80 - rows), (0, 0), (offset, 140 - offset)]
    array = np.pad(small.array, beside, constant_values=HU["background"])
    array += np.random.default_rng(0).integers(-9, 9, array.shape).astype(np.int16)
    grid = makers.grid(array.shape[1:], (1.5, 1.5, 1.5))
    return Volume(array=array, grid=grid, stored=grid)


@pytest.mark.parametrize("rows", [80, 74])
def test_a_localizer_of_another_dataset_leaves_out_what_lies_beside_the_spine(rows):
    localizer = predictor(Thresholds(), spacing_mm=(3.0, 3.0, 3.0))
    guided = replace(predictor(Thresholds()), localizer=localizer, found_together=(300, 7))
    volume = wide(rows, 10)
    job = guided.prepare(volume, "CT")
    assert job.region == "spine"
    assert len(job.run) < 0.7 * job.tiles
    extent = job.tile_grid.extent
    assert (extent.start[0], extent.stop[0]) == (0, 80), "all rows are covered, whatever was found in them"
    assert extent.start[2] == 0
    assert extent.stop[2] >= 10 + 30 + 40, "60 mm beside the spine"
    np.testing.assert_array_equal(guided.predict(volume, "CT"), predictor(Thresholds()).predict(volume, "CT"))


def test_a_localizer_of_another_dataset_is_trusted_with_little():
    """Neither in images that show little beside the spine, nor where it finds a part of a spine alone."""
    coarse = Counting()
    localizer = predictor(coarse, spacing_mm=(3.0, 3.0, 3.0))
    guided = replace(predictor(Thresholds()), localizer=localizer, found_together=(300, 7))
    narrow, _ = phantom((80, 40, 100))
    assert guided.prepare(narrow, "CT").region == "body"
    assert coarse.seen == 0
    part = guided.prepare(wide(30, 10), "CT")
    assert coarse.seen > 0
    assert part.region == "body"
    assert part.run == predictor(Thresholds()).prepare(wide(30, 10), "CT").run


def test_where_no_spine_is_found_the_body_counts():
    volume, _ = phantom()

    class Nothing(Thresholds):
        def forward(self, image: torch.Tensor) -> torch.Tensor:
            return super().forward(torch.full_like(image, -1.5))

    guided = replace(predictor(Thresholds()), localizer=predictor(Nothing()))
    work = guided.prepare(volume, "CT")
    plain = predictor(Thresholds()).prepare(volume, "CT")
    assert (work.region, work.run) == ("body", plain.run)
    assert guided.seconds_per_tile > 0


def test_tiles_lie_around_the_spine():
    small, labels = phantom((40, 20, 20))
    array = np.pad(small.array, [(0, 0), (20, 20), (60, 60), (60, 60)], constant_values=HU["background"])
    array += np.random.default_rng(0).integers(-9, 9, array.shape).astype(np.int16)
    grid = makers.grid(array.shape[1:], (1.5, 1.5, 1.5))
    localizer = predictor(Thresholds(), spacing_mm=(3.0, 3.0, 3.0))
    guided = replace(predictor(Thresholds(), patch_size=(32, 48, 48)), localizer=localizer)
    work = guided.prepare(Volume(array=array, grid=grid, stored=grid), "CT")
    rows, columns, along = (np.flatnonzero(labels.any(axis=others)) for others in ((1, 2), (0, 2), (0, 1)))
    assert abs(work.tile_grid.extent.start[0] - max(0, 20 + rows[0] - 40 / 1.5)) <= 3
    assert abs(work.tile_grid.extent.stop[0] - min(80, 21 + rows[-1] + 40 / 1.5)) <= 3
    for axis, found in ((1, columns), (2, along)):
        assert len(work.tile_grid.starts[axis]) == 1
        middle = work.tile_grid.starts[axis][0] + 24
        assert abs(middle - (60 + found.mean())) <= 3, "the spine is in the tiles' middle"
    assert len(work.run) <= 4 < work.tiles == 4 * 5 * 5


def test_bands_of_scores_reach_beyond_the_spine():
    volume, _ = phantom((40, 40, 40))
    array = np.pad(volume.array, [(0, 0), (50, 60), (0, 40), (40, 0)], constant_values=HU["background"])
    array += np.random.default_rng(0).integers(-9, 9, array.shape).astype(np.int16)
    grid = makers.grid(array.shape[1:], (1.5, 1.2, 1.5))
    far = Volume(array=array, grid=grid, stored=grid)
    guided = replace(predictor(Thresholds()), localizer=predictor(Thresholds(), spacing_mm=(3.0, 3.0, 3.0)))
    bands = list(guided.score_bands(far, "CT"))
    assert [rows.start for rows, _ in bands] == [0, *(rows.stop for rows, _ in bands[:-1])]
    scores = np.concatenate([band for _, band in bands], axis=1)
    assert scores.shape[1:] == grid.shape
    np.testing.assert_allclose(scores.sum(0), 1, atol=1e-5)
    np.testing.assert_array_equal(LABELS.decode(scores.argmax(0)), guided.predict(far, "CT"))


class Roomy(Thresholds):
    """Has room for so many tiles at once."""

    def __init__(self, room: int) -> None:
        super().__init__()
        self.room, self.sizes = room, []

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        if len(image) > self.room:
            raise torch.OutOfMemoryError("CUDA out of memory")
        self.sizes.append(len(image))
        return super().forward(image)


@pytest.mark.parametrize("room", [8, 2, 1])
def test_several_tiles_at_once_give_the_same_labels(room):
    volume, _ = phantom((20, 18, 60))
    one_by_one = predictor(Thresholds())
    expected, work = one_by_one.predict(volume, "CT"), one_by_one.prepare(volume, "CT")

    network = Roomy(room)
    together = replace(predictor(network), tile_batch_size=5)
    np.testing.assert_array_equal(together.predict(volume, "CT"), expected)
    assert sum(network.sizes) == len(work.run), "what had been run was kept"
    assert max(network.sizes) == {8: 5, 2: 2, 1: 1}[room]


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_scores_that_are_not_finite_are_refused(bad):
    class Bad(Thresholds):
        def forward(self, image: torch.Tensor) -> torch.Tensor:
            logits = super().forward(image).clone()
            logits[..., 5, 5, 5] = bad
            return logits

    with pytest.raises(ModelError, match="expected finite scores"):
        predictor(Bad()).predict(phantom()[0], "CT")


@pytest.mark.parametrize("part", ["resample", "argmax"])
def test_scores_that_the_device_has_no_room_for_are_read_in_ram(part, monkeypatch):
    volume, labels = phantom()
    kind = to_native.NativeGrid if part == "resample" else to_native.NativePiece
    done, failed = getattr(kind, part), []

    def short(*arguments):
        if len(failed) % 2 == 0:
            failed.append(arguments)
            raise torch.OutOfMemoryError("CUDA out of memory")
        failed.append(None)
        return done(*arguments)

    monkeypatch.setattr(kind, part, short)
    np.testing.assert_array_equal(predictor(Thresholds()).predict(volume, "CT"), labels)
    assert failed


@pytest.mark.parametrize("wide", [False, True])
def test_a_seam_survives_a_want_of_memory_in_the_middle(wide, monkeypatch):
    """Of every allocation that a piece's way to the image's grid takes, each fails once."""
    volume, _ = phantom((48, 30, 34), (0.9, 1.1, 0.7))
    one = replace(predictor(Waves(3, 0.0)), region_of_interest=False)
    whole_of = whole.scores(one, volume)
    refine, failed = to_native.NativeGrid.resample, []

    def fails(tensor, *_):
        failed.append(tensor.shape)
        raise torch.OutOfMemoryError("CUDA out of memory")

    def short(grid, piece):
        for name in ("clone", "new_empty"):
            with monkeypatch.context() as patch:
                patch.setattr(torch.Tensor, name, fails)
                with suppress(torch.OutOfMemoryError):
                    refine(grid, piece)
        return refine(grid, piece)

    monkeypatch.setattr(to_native.NativeGrid, "resample", short)
    if wide:
        found = np.concatenate([scores for _, scores in one.score_bands(volume, "CT")], axis=1)
        np.testing.assert_allclose(found, whole_of, atol=1e-5)
    else:
        kept = np.zeros_like(whole_of)
        kept[0] = 1  # what was cropped away is not handed over
        one.predict(volume, "CT", score_sink=lambda box, channel, part: _put(kept, box, channel, part))
        np.testing.assert_allclose(kept, whole_of, atol=1e-5)
    assert len(failed) >= 4


def _put(kept, box, channel, part):
    kept[channel][box.slices] = part


@pytest.mark.parametrize("wide", [False, True])
def test_no_scores_are_held_while_a_tile_is_run(wide, monkeypatch):
    volume, _ = phantom((60, 40, 40), (1.2, 1.2, 1.2))
    held: list[weakref.ref] = []
    refine = to_native.NativeGrid.resample

    def remembered(grid, piece):
        made = refine(grid, piece)
        held.append(weakref.ref(made._scores))
        return made

    class Watching(Thresholds):
        def forward(self, image: torch.Tensor) -> torch.Tensor:
            assert [scores for scores in held if scores() is not None] == []
            logits = super().forward(image)
            held.append(weakref.ref(logits))
            return logits

    monkeypatch.setattr(to_native.NativeGrid, "resample", remembered)
    one = replace(predictor(Thresholds()), networks=[Watching(), Watching()], region_of_interest=False)
    for _ in one.score_bands(volume, "CT") if wide else [one.predict(volume, "CT")]:
        pass
    assert len(held) > 20


@pytest.mark.gpu
@pytest.mark.parametrize("share", [0.0, 0.5])
@pytest.mark.parametrize("labels", [LABELS, parse_labels({"a": [300, 7], "b": [7]}, (300, 7))])
def test_a_gpu_gives_what_a_cpu_gives_wherever_the_slab_is(share, labels, monkeypatch):
    volume, _ = phantom((40, 30, 30))
    here = replace(predictor(Waves(labels.n_channels, 0.0), labels), region_of_interest=False)
    expected = np.concatenate([scores for _, scores in here.score_bands(volume, "CT")], axis=1)
    monkeypatch.setattr(case_memory, "SLAB_SHARE", share)
    there = replace(here, networks=ready_networks([Waves(labels.n_channels, 0.0)], GPU), device=GPU)
    found = np.concatenate([scores for _, scores in there.score_bands(volume, "CT")], axis=1)
    np.testing.assert_allclose(found, expected, atol=1e-4)
    assert (there.predict(volume, "CT") == here.predict(volume, "CT")).mean() > 0.999


@pytest.mark.gpu
def test_a_gpu_runs_as_many_tiles_at_once_as_it_has_found_to_pay():
    volume, labels = phantom()
    there = replace(predictor(Thresholds()), networks=ready_networks([Thresholds()], GPU), device=GPU)
    np.testing.assert_array_equal(there.predict(volume, "CT"), labels)
    assert there.tile_batch.size >= 1
    assert there.seconds_per_tile > 0
