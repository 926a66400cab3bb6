import resource
import signal
from itertools import pairwise

import blosc2
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import autospine
from autospine.core.errors import DatasetError, FormatError, WorkspaceError
from autospine.core.geometry import Box, Grid, orientation
from autospine.core.labels import parse_labels
from autospine.prediction import probabilities
from autospine.prediction.probabilities import ProbabilityWriter, check_room, read_probabilities, stored_bytes

LABELS = parse_labels({"background": 0, "bone": 300, "canal": 7})
REGIONS = parse_labels({"whole": [300, 7], "bone": [300]}, regions_class_order=(7, 300))
HALF_A_STEP = 0.5 / probabilities.STEPS + 1e-6

ORIENTATIONS = {
    "lps": (1, 0, 0, 0, 1, 0, 0, 0, 1),
    "ras": (-1, 0, 0, 0, -1, 0, 0, 0, 1),
    "feet first": (1, 0, 0, 0, -1, 0, 0, 0, -1),
    "sagittal": (0, 0, -1, 1, 0, 0, 0, -1, 0),
    "coronal": (0, 1, 0, 0, 0, 1, -1, 0, 0),
}


def grid(shape, direction="lps") -> Grid:
    """A stored grid; `shape` is that of the label map's array."""
    directions = tuple(float(d) for d in ORIENTATIONS[direction])
    return Grid(shape=shape, spacing_mm=(1.0, 2.0, 3.0), origin_mm=(4.0, 5.0, 6.0), direction=directions)


def draw(channels, stored: Grid) -> torch.Tensor:
    """Scores in canonical axes."""
    generator = torch.Generator().manual_seed(1)
    whole = torch.rand((channels, *stored.shape), generator=generator).numpy()
    return torch.from_numpy(orientation(stored).to_canonical(whole).copy())


def write(path, labels, stored, scores, boxes) -> None:
    writer = ProbabilityWriter(path, labels, stored)
    for box in boxes:
        for channel, part in enumerate(scores):
            writer.take(box, channel, part[box.slices])
    writer.finish()


def pieces(shape, cuts) -> list[Box]:
    """Boxes that cover a volume, in the slab's order, cut at some rows and in the middle of the columns."""
    rows = sorted({0, *(cut for cut in cuts if cut < shape[0]), shape[0]})
    columns = sorted({0, shape[1] // 2, shape[1]})
    return [
        Box(start=(a, c, 0), stop=(b, d, shape[2])) for a, b in pairwise(rows) for c, d in pairwise(columns)
    ]


@given(
    st.tuples(*[st.integers(1, 12)] * 3),
    st.sampled_from(sorted(ORIENTATIONS)),
    st.sets(st.integers(1, 11)),
    st.integers(1, 200),
)
@settings(deadline=None, max_examples=60)
def test_what_is_read_is_what_was_handed_over_in_the_label_maps_order(
    tmp_path_factory, shape, direction, cuts, chunk
):
    stored = grid(shape, direction)
    scores, path = draw(3, stored), tmp_path_factory.mktemp("p") / "case_probabilities.b2nd"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(probabilities, "CHUNK_BYTES", chunk)
        write(path, LABELS, stored, scores, pieces(scores.shape[1:], cuts))
    found = read_probabilities(path)
    assert (found.classes, found.integers) == (("background", "bone", "canal"), (0, 300, 7))
    assert found.grid == stored
    for name, expected in zip(found.classes, scores, strict=True):
        whole = found.read(name)
        assert whole.dtype == np.float32
        wanted = orientation(stored).to_stored(expected.numpy())
        np.testing.assert_allclose(whole, wanted, atol=HALF_A_STEP)
        np.testing.assert_array_equal(found.read(name, np.s_[1:, :, 0]), whole[1:, :, 0])
        np.testing.assert_array_equal(found.read(name, 0), whole[0])


@pytest.mark.parametrize("labels", [LABELS, REGIONS])
@pytest.mark.parametrize("direction", ["lps", "feet first", "sagittal"])
def test_what_no_box_covers_is_background(tmp_path, labels, direction):
    stored, path = grid((30, 20, 25), direction), tmp_path / "case_probabilities.b2nd"
    scores = draw(labels.n_channels, stored)
    box = Box(start=(7, 3, 2), stop=(16, 9, 11))
    write(path, labels, stored, scores, [box])
    expected = np.zeros(scores.shape, dtype=np.float32)
    if not labels.regions:
        expected[0] = 1
    expected[:, *box.slices] = scores[:, *box.slices]
    found = read_probabilities(path)
    whole = np.stack([found.read(name) for name in found.classes])
    np.testing.assert_allclose(whole, orientation(stored).to_stored(expected), atol=HALF_A_STEP)


def test_certainty_is_exact(tmp_path):
    stored, path = grid((4, 4, 4)), tmp_path / "case_probabilities.b2nd"
    scores = torch.zeros(3, 4, 4, 4)
    scores[1] = 1 + 1e-6  # a sum of weights may round up
    write(path, LABELS, stored, scores, pieces((4, 4, 4), ()))
    found = read_probabilities(path)
    assert (found.read("bone") == 1).all()
    assert not found.read("canal").any()


def test_few_rows_are_held_and_chunks_are_written_once(tmp_path, monkeypatch):
    monkeypatch.setattr(probabilities, "CHUNK_BYTES", 4 * 20 * 25)
    stored, path = grid((60, 20, 25)), tmp_path / "case_probabilities.b2nd"
    scores = draw(3, stored)
    writer = ProbabilityWriter(path, LABELS, stored)
    for box in pieces((60, 20, 25), range(3, 60, 5)):
        for channel, part in enumerate(scores):
            writer.take(box, channel, part[box.slices])
            assert writer._rows.shape[1] <= 5 + 4
    writer.finish()
    array = blosc2.open(str(path))
    assert array.chunks == (1, 4, 20, 25)
    # A chunk that is written twice leaves a hole.
    assert path.stat().st_size < 1.05 * array.schunk.cbytes + 4096


def test_plain_blosc2_reads_it_too(tmp_path):
    stored, path = grid((6, 5, 4)), tmp_path / "case_probabilities.b2nd"
    scores = draw(3, stored)
    write(path, LABELS, stored, scores, pieces((6, 5, 4), (2,)))
    array = blosc2.open(str(path), mode="r")
    assert (array.shape, array.dtype) == ((3, 6, 5, 4), np.uint8)
    np.testing.assert_allclose(array[1, 2:4] / 255, scores[1, 2:4], atol=HALF_A_STEP)


def test_the_library_shows_it():
    assert autospine.read_probabilities is read_probabilities


def test_unknown_classes_and_other_files_are_refused(tmp_path):
    path = tmp_path / "case_probabilities.b2nd"
    write(path, LABELS, grid((6, 5, 4)), draw(3, grid((6, 5, 4))), [])
    with pytest.raises(DatasetError, match=r"expected one of background, bone, canal in .*, found 'disc'"):
        read_probabilities(path).read("disc")
    with pytest.raises(FormatError, match="predict again"):
        read_probabilities(tmp_path / "absent.b2nd")
    plain = tmp_path / "plain.b2nd"
    blosc2.asarray(np.zeros((2, 3)), urlpath=str(plain))
    with pytest.raises(FormatError, match="expected probabilities of --save-probabilities"):
        read_probabilities(plain)
    array = blosc2.open(str(path), mode="a")
    text = array.schunk.vlmeta["autospine"]
    array.schunk.vlmeta["autospine"] = text.replace('"format_version": 1', '"format_version": 9')
    del array
    with pytest.raises(FormatError, match=r"expected format_version 1 in .*, found 9; predict again"):
        read_probabilities(path)
    path.write_bytes(path.read_bytes()[:-30])
    with pytest.raises(FormatError, match="predict again"):
        read_probabilities(path)


@pytest.fixture
def small_disk():
    """No file may grow beyond 100 kB."""
    limits, usual = resource.getrlimit(resource.RLIMIT_FSIZE), signal.getsignal(signal.SIGXFSZ)
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, limits[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    signal.signal(signal.SIGXFSZ, usual)


def test_a_full_disk_is_said(tmp_path, small_disk):
    stored = grid((60, 50, 40))
    with pytest.raises(WorkspaceError, match=r"probabilities to .* MB free; free some space"):
        write(tmp_path / "p.b2nd", LABELS, stored, draw(3, stored), pieces((60, 50, 40), range(5, 60, 5)))


def test_where_the_disk_is_as_good_as_full_nothing_is_begun(tmp_path, monkeypatch):
    class Full:
        free = 1_000_000

    assert stored_bytes(LABELS, (512, 512, 800)) == 3 * 512 * 512 * 800
    check_room(tmp_path / "p.b2nd", LABELS, (512, 512, 800))
    monkeypatch.setattr(probabilities.shutil, "disk_usage", lambda _: Full())
    check_room(tmp_path / "p.b2nd", LABELS, (100, 100, 100))
    with pytest.raises(WorkspaceError, match=r"up to 629 MB, found 1 MB; free some space"):
        check_room(tmp_path / "p.b2nd", LABELS, (512, 512, 800))
