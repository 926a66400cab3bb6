"""Folds partition the cases, keep subjects together and spread what is rare."""

import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import makers
import pytest
from hypothesis import given
from hypothesis import strategies as st

from autospine.core.errors import DatasetError, FormatError
from autospine.dataset.raw import Dataset, load_dataset
from autospine.dataset.splits import (
    FoldCase,
    FoldsFile,
    classes_missing,
    fold_cases,
    folds_of,
    full_fold,
    make_folds,
    read_folds,
    read_splits,
    separated,
    write_folds,
)

Described = list[tuple[int, str, str, frozenset[int]]]

DESCRIBED: st.SearchStrategy[Described] = st.lists(
    st.tuples(
        st.integers(0, 9),
        st.sampled_from(["CT", "MR"]),
        st.sampled_from(["x", "y"]),
        st.frozensets(st.integers(1, 3)),
    ),
    min_size=5,
    max_size=20,
).filter(lambda cases: len({case[0] for case in cases}) >= 5)
"""Subject, modality, site and classes of cases of at least five subjects."""


def built(described: Described) -> list[FoldCase]:
    return [
        FoldCase(name=f"case{i:02d}", subject=f"subject{subject}", stratum=(modality, site), classes=classes)
        for i, (subject, modality, site, classes) in enumerate(described)
    ]


def one_each(strata: list[tuple[str, ...]], classes: list[set[int]] | None = None) -> list[FoldCase]:
    """One case per subject."""
    return [
        FoldCase(
            name=f"c{index:02d}",
            subject=f"s{index:02d}",
            stratum=stratum,
            classes=frozenset(classes[index] if classes else {1}),
        )
        for index, stratum in enumerate(strata)
    ]


@given(DESCRIBED)
def test_folds_partition_the_cases_and_keep_subjects_together(described: Described):
    cases = built(described)
    folds = make_folds(cases)
    assert [fold.name for fold in folds] == ["0", "1", "2", "3", "4"]
    assert sorted(name for fold in folds for name in fold.validation) == sorted(case.name for case in cases)
    subject = {case.name: case.subject for case in cases}
    for fold in folds:
        assert fold.validation
        assert sorted(fold.training + fold.validation) == sorted(subject)
        assert not {subject[n] for n in fold.training} & {subject[n] for n in fold.validation}


@given(DESCRIBED)
def test_folds_do_not_depend_on_the_order_of_cases(described: Described):
    cases = built(described)
    assert make_folds(cases[::-1]) == make_folds(cases)


@given(
    st.lists(st.sampled_from([("CT", "x"), ("CT", "y"), ("MR", "x")]), min_size=5, max_size=40),
    st.integers(2, 5),
)
def test_every_stratum_is_spread_evenly(strata: list[tuple[str, ...]], n: int):
    """No fold has two cases more of a stratum than another."""
    cases = one_each(strata)
    stratum = {case.name: case.stratum for case in cases}
    folds = make_folds(cases, n)
    for kind in set(strata):
        counts = [sum(stratum[name] == kind for name in fold.validation) for fold in folds]
        assert max(counts) - min(counts) <= 1
    sizes = [len(fold.validation) for fold in folds]
    assert max(sizes) - min(sizes) <= len(set(strata))


def test_modalities_are_spread_where_every_site_is_another():
    cases = one_each([("CT" if index % 3 else "MR", str(index)) for index in range(15)])
    modality = {case.name: case.stratum[0] for case in cases}
    for fold in make_folds(cases):
        assert sorted(modality[name] for name in fold.validation) == ["CT", "CT", "MR"]


@given(
    st.lists(st.sampled_from([("CT",), ("MR",)]), min_size=6, max_size=20),
    st.data(),
)
def test_a_class_of_two_subjects_stays_in_every_training_part(
    strata: list[tuple[str, ...]], data: st.DataObject
):
    rare = data.draw(st.sets(st.integers(0, len(strata) - 1), min_size=2, max_size=4))
    cases = one_each(strata, [{1, 2} if index in rare else {1} for index in range(len(strata))])
    assert classes_missing(make_folds(cases), cases) == {}


def test_a_class_of_one_subject_is_told_as_missing():
    cases = one_each([("CT",)] * 6, [{1, 5}] + [{1}] * 5)
    missing = classes_missing(make_folds(cases), cases)
    assert list(missing.values()) == [frozenset({5})]


def test_fewer_subjects_than_folds_are_refused():
    cases = one_each([("CT",)] * 4)
    twice = [*cases, FoldCase(name="x", subject="s00", stratum=("CT",), classes=frozenset())]
    with pytest.raises(DatasetError, match=r"at least 5 subjects .* found 4 with 5 cases; add .*--fold full"):
        make_folds(twice)


@pytest.fixture
def dataset(raw_dataset: Callable[..., Path]) -> Dataset:
    names = ("a", "b", "c", "d", "e", "f")
    return load_dataset(
        raw_dataset(names=names, cases_csv="case,site,subject\na,x,p\nb,,p\n", channels={"0": "CT"})
    )


def test_a_dataset_is_split_by_what_was_measured(dataset: Dataset):
    cases = fold_cases(
        dataset, {c.name: "CT" for c in dataset.cases}, {c.name: frozenset({1}) for c in dataset.cases}
    )
    assert cases[0] == FoldCase(name="a", subject="p", stratum=("CT", "x"), classes=frozenset({1}))
    assert Counter(len(fold.validation) for fold in make_folds(cases)) == {2: 1, 1: 4}


def test_cases_that_show_one_image_count_as_one_subject(dataset: Dataset):
    modalities, classes = dict.fromkeys("abcdef", "CT"), dict.fromkeys("abcdef", frozenset({1}))
    # a and b are of one patient; d links c to that patient.
    cases = fold_cases(dataset, modalities, classes, [("b", "d"), ("c", "d"), ("e", "f")])
    groups: dict[str, set[str]] = {}
    for case in cases:
        groups.setdefault(case.subject, set()).add(case.name)
    assert sorted(map(sorted, groups.values())) == [["a", "b", "c", "d"], ["e", "f"]]
    folds = make_folds(cases, 2)
    assert separated(folds, [("b", "d"), ("e", "f")]) == ()
    assert separated(folds, [("a", "e"), ("e", "f")]) == (("a", "e"),)


def test_the_full_fold_trains_on_everything(dataset: Dataset):
    fold = full_fold(dataset)
    assert fold.training == ("a", "b", "c", "d", "e", "f")
    assert fold.validation == ()


class TestFile:
    """`folds.json`, which may be edited."""

    @pytest.fixture
    def path(self, dataset: Dataset, tmp_path: Path) -> Path:
        cases = fold_cases(
            dataset, {c.name: "CT" for c in dataset.cases}, {c.name: frozenset() for c in dataset.cases}
        )
        write_folds(tmp_path / "folds.json", dataset.name, make_folds(cases))
        return tmp_path / "folds.json"

    def edit(self, path: Path, validation: list[list[str]], **more: object):
        described = json.loads(path.read_text(encoding="utf-8")) | {"validation": validation} | more
        path.write_text(json.dumps(described))

    def test_it_comes_back(self, path: Path, dataset: Dataset):
        folds = read_folds(path, dataset)
        assert sorted(name for fold in folds for name in fold.validation) == list("abcdef")
        assert all(set(fold.training) | set(fold.validation) == set("abcdef") for fold in folds)

    def test_sensible_edits_are_taken(self, path: Path, dataset: Dataset):
        self.edit(path, [["c", "a", "b"], ["d", "e", "f"]])
        first, second = read_folds(path, dataset)
        assert first.validation == second.training == ("a", "b", "c")

    def test_a_single_fold_trains_on_the_cases_that_it_does_not_list(self, path: Path, dataset: Dataset):
        self.edit(path, [["c", "d"]])
        (fold,) = read_folds(path, dataset)
        assert fold.validation == ("c", "d") and fold.training == ("a", "b", "e", "f")
        assert separated((fold,), [["a", "c"], ["a", "b"]]) == (("a", "c"),)

    @pytest.mark.parametrize(
        ("validation", "expected"),
        [
            ([["a", "b"], ["c", "d", "e", "f", "zoe"]], "unknown case zoe"),
            ([["a", "b", "c"], ["c", "d", "e", "f"]], "case c is validated 2 times"),
            ([["a", "b"], ["d", "e", "f"]], "case c is in no fold"),
            ([["a"], ["b", "c", "d", "e", "f"]], "subject p is split"),
            ([["a", "b"], [], ["c", "d", "e", "f"]], "fold 1 is empty"),
            ([list("abcdef")], "no case is left to train on"),
            ([["a", "c"]], "subject p is split"),
        ],
    )
    def test_nonsense_is_refused(
        self, validation: list[list[str]], expected: str, path: Path, dataset: Dataset
    ):
        self.edit(path, validation)
        with pytest.raises(FormatError, match=rf"Dataset007_Test .*folds\.json, found .*{expected}.*; mend"):
            read_folds(path, dataset)

    def test_other_versions_and_keys_are_refused(self, path: Path, dataset: Dataset):
        self.edit(path, [["a", "b", "c"], ["d", "e", "f"]], format_version=99)
        with pytest.raises(FormatError, match="format_version 99"):
            read_folds(path, dataset)
        self.edit(path, [["a", "b", "c"], ["d", "e", "f"]], format_version=1, seed=3)
        with pytest.raises(FormatError, match="seed"):
            read_folds(path, dataset)


def test_cases_of_folds_go_by_names_that_look_the_same(tmp_path):
    names = ("a", "Mu\u0308ller", "b")
    dataset = makers.dataset_of(tmp_path / "Dataset001_A", {name: makers.column() for name in names})
    written = FoldsFile(format_version=1, dataset="D", validation=(("a",), ("M\u00fcller", "b")))
    folds = folds_of(written, tmp_path / "folds.json", dataset)
    assert folds[1].validation == ("Mu\u0308ller", "b")


class TestSplitsOfNnunet:
    """`splits_final.json`, a list of folds with `train` and `val`."""

    def write(self, path: Path, *validation: str, without: str = "") -> Path:
        folds = [
            {"train": [n for n in "abcdef" if n not in fold + without], "val": list(fold)}
            for fold in validation
        ]
        path.write_text(json.dumps(folds), encoding="utf-8")
        return path

    def test_they_are_taken(self, dataset: Dataset, tmp_path: Path):
        folds = read_splits(self.write(tmp_path / "splits_final.json", "abc", "de", "f"), dataset)
        assert [fold.validation for fold in folds] == [("a", "b", "c"), ("d", "e"), ("f",)]
        assert folds[1].training == ("a", "b", "c", "f")
        write_folds(tmp_path / "folds.json", dataset.name, folds)
        assert read_folds(tmp_path / "folds.json", dataset) == folds

    def test_a_fold_that_leaves_cases_out_is_refused(self, dataset: Dataset, tmp_path: Path):
        path = self.write(tmp_path / "splits_final.json", "abc", "de", "f", without="f")
        with pytest.raises(FormatError, match=r"fold 0 of .*splits_final\.json.*\(f\); mend"):
            read_splits(path, dataset)

    def test_what_does_not_fit_the_dataset_is_refused(self, dataset: Dataset, tmp_path: Path):
        with pytest.raises(FormatError, match="case f is in no fold"):
            read_splits(self.write(tmp_path / "splits_final.json", "abc", "de"), dataset)
        (tmp_path / "splits_final.json").write_text('[{"train": ["a"]}]')
        with pytest.raises(FormatError, match=r"the splits of nnU-Net in .*val"):
            read_splits(tmp_path / "splits_final.json", dataset)

    @pytest.mark.parametrize(
        ("validation", "says"),
        [
            ([["a", "b"], ["c", "d", "e"]], r"case f is in no fold; mend the file, or name another with"),
            ([["a.nii.gz", "b"], ["c", "d", "e", "f"]], r"unknown case a\.nii\.gz \(write a alone"),
            ([["a_0000", "b"], ["c", "d", "e", "f"]], r"unknown case a_0000 \(write a alone"),
            ([["A", "b"], ["c", "d", "e", "f"]], r"unknown case A \(write a as"),
            ([[1, 2], [3]], r"expected case names as texts in .*found numbers such as 1; write"),
        ],
    )
    def test_names_that_do_not_fit_say_why(self, validation, says, dataset: Dataset, tmp_path: Path):
        path = tmp_path / "splits_final.json"
        path.write_text(json.dumps([{"train": [], "val": val} for val in validation]), encoding="utf-8")
        with pytest.raises(FormatError, match=says) as caught:
            read_splits(path, dataset)
        assert "delete" not in str(caught.value)

    def test_a_pickle_is_not_opened(self, dataset: Dataset, tmp_path: Path):
        path = tmp_path / "splits_final.pkl"
        path.write_bytes(b"\x80\x04]\x94.")
        with pytest.raises(
            FormatError, match=r"found a pickle at .*; save its list of folds as splits_final\.json"
        ):
            read_splits(path, dataset)

    def test_in_the_place_of_the_folds_they_are_known(self, dataset: Dataset, tmp_path: Path):
        path = self.write(tmp_path / "folds.json", "abc", "de", "f")
        with pytest.raises(FormatError, match=r"those of nnU-Net; .*--splits"):
            read_folds(path, dataset)
