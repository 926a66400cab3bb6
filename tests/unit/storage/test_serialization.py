import json
import re
from dataclasses import dataclass
from typing import Annotated

import makers
import pytest
from hypothesis import given
from hypothesis import strategies as st

from autospine.core.errors import FormatError
from autospine.core.types import Modality, Vector3
from autospine.plan import Plan
from autospine.storage.serialization import above, at_most, between, from_json, read_json, to_json, write_json


@dataclass(frozen=True, kw_only=True, slots=True)
class Inner:
    name: str
    size_mm: Vector3
    level: int | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Outer:
    count: int
    share: float
    on: bool
    inner: tuple[Inner, ...]
    by_modality: dict[Modality, Inner]


FLOATS = st.floats(allow_nan=False, allow_infinity=False)
INNER = st.builds(
    Inner, name=st.text(), size_mm=st.tuples(FLOATS, FLOATS, FLOATS), level=st.none() | st.integers()
)
OUTER = st.builds(
    Outer,
    count=st.integers(),
    share=FLOATS,
    on=st.booleans(),
    inner=st.lists(INNER, max_size=3).map(tuple),
    by_modality=st.dictionaries(st.sampled_from(["CT", "MR"]), INNER),
)
SAMPLE = Outer(
    count=3,
    share=0.5,
    on=True,
    inner=(Inner(name="a", size_mm=(1.0, 2.0, 3.0)),),
    by_modality={"CT": Inner(name="b", size_mm=(1.0, 2.0, 3.0), level=2)},
)


def objects(value):
    """Every JSON object inside a value."""
    if isinstance(value, dict):
        yield value
        value = list(value.values())
    if isinstance(value, list):
        for item in value:
            yield from objects(item)


@given(OUTER)
def test_values_come_back_as_they_were(value):
    assert from_json(to_json(value), Outer, "test") == value


def test_a_plan_comes_back_as_it_was(tmp_path):
    plan = makers.plan(makers.configuration(), makers.configuration(name="fast"))
    write_json(tmp_path / "plan.json", plan)
    assert read_json(tmp_path / "plan.json", Plan) == plan


def test_json_is_for_people():
    text = to_json(makers.plan())
    assert '"patch_size": [16, 16, 16],\n' in text
    assert text.endswith("}\n")
    assert max(map(len, text.splitlines())) < 120


def test_an_unknown_key_is_refused_at_any_depth():
    n = len(list(objects(json.loads(to_json(SAMPLE)))))
    for index in range(n):
        described = json.loads(to_json(SAMPLE))
        target = list(objects(described))[index]
        if target is described["by_modality"]:
            target["XR"] = target["CT"]
            unknown = "XR"
        else:
            target["surplus"] = 1
            unknown = "surplus"
        with pytest.raises(FormatError, match=unknown):
            from_json(json.dumps(described), Outer, "test")


@pytest.mark.parametrize("key", ["count", "share", "on", "inner", "by_modality"])
def test_a_missing_key_is_refused(key):
    described = json.loads(to_json(SAMPLE))
    del described[key]
    with pytest.raises(FormatError, match=f"{key} is missing"):
        from_json(json.dumps(described), Outer, "test")


@pytest.mark.parametrize(
    ("key", "wrong"),
    [
        ("count", "3"),
        ("count", 3.5),
        ("count", True),
        ("share", "0.5"),
        ("share", True),
        ("share", None),
        ("on", 1),
        ("on", "yes"),
        ("inner", {}),
        ("inner", None),
        ("by_modality", []),
    ],
)
def test_a_wrong_type_is_refused(key, wrong):
    described = json.loads(to_json(SAMPLE)) | {key: wrong}
    with pytest.raises(FormatError, match=f"found {key}"):
        from_json(json.dumps(described), Outer, "test")


def test_whole_numbers_stand_for_floats():
    described = json.loads(to_json(SAMPLE)) | {"share": 1}
    assert from_json(json.dumps(described), Outer, "test").share == 1.0


def test_problems_are_listed_with_their_place():
    described = json.loads(to_json(SAMPLE)) | {"count": "many", "surplus": 1}
    described["inner"][0]["size_mm"] = [1.0, 2.0]
    with pytest.raises(FormatError, match=r"expected JSON in fingerprint\.json") as caught:
        from_json(json.dumps(described), Outer, "fingerprint.json")
    assert all(place in str(caught.value) for place in ("count is", "surplus is", "inner.0.size_mm"))


@dataclass(frozen=True, kw_only=True, slots=True)
class Bounded:
    share: Annotated[float, between(0.05, 1.0)] = 0.5
    rate: Annotated[float, above(0.0, 2.0)] = 1.0
    names: Annotated[tuple[str, ...], at_most(2)] = ()
    modality: Modality = "CT"
    on: bool = False
    size_mm: Vector3 = (1.0, 1.0, 1.0)
    rows: tuple[tuple[str, ...], ...] = ()


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ('{"share": 0.001}', "found share is 0.001, at least 0.05 is allowed; restore"),
        ('{"share": 7}', "share is 7, at most 1.0 is allowed"),
        ('{"rate": 0}', "rate is 0, more than 0.0 is allowed"),
        ('{"share": "0.5"}', 'share is "0.5", expected a number'),
        ('{"share": NaN}', "share is NaN, expected a finite number"),
        ('{"names": ["a", "b", "c"]}', "names has 3 entries, at most 2 are allowed"),
        ('{"names": 5}', "names is 5, expected a list"),
        ('{"names": {}}', "names is an object, expected a list"),
        ('{"modality": "XR"}', "modality is \"XR\", expected 'CT' or 'MR'"),
        ('{"on": 1}', "on is 1, expected true or false"),
        ('{"learning": 1}', "learning is not known"),
        ('{"size_mm": [1, 2]}', "size_mm.2 is missing"),
        ("[]", "the file is a list of 0, expected an object"),
        ("", "found no JSON (EOF while parsing a value at line 1 column 0); restore"),
        (
            '{"rows": [[1, 2], ["a", 3]], "on": 2}',
            "on is 2, expected true or false; rows.0.0 is 1, expected a text (and 2 more like it); restore",
        ),
    ],
)
def test_faults_are_said_in_plain_words(text: str, says: str):
    with pytest.raises(FormatError, match=re.escape(says)):
        from_json(text, Bounded, "test")


def test_few_of_many_kinds_of_faults_are_listed():
    with pytest.raises(FormatError, match=r"k4 is not known and 45 more; restore"):
        from_json(json.dumps({f"k{index}": 1 for index in range(50)}), Bounded, "test")


@pytest.mark.parametrize("text", ["", "{", "[]", "null", '{"count": 1', "\x00"])
def test_what_is_no_such_json_is_refused(tmp_path, text):
    path = tmp_path / "outer.json"
    path.write_text(text)
    with pytest.raises(FormatError, match=r"outer\.json"):
        read_json(path, Outer)


def test_missing_and_unreadable_files_are_refused(tmp_path):
    with pytest.raises(FormatError, match=r"absent\.json"):
        read_json(tmp_path / "absent.json", Outer)
    (tmp_path / "binary.json").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(FormatError, match=r"binary\.json"):
        read_json(tmp_path / "binary.json", Outer)
    with pytest.raises(FormatError, match="found a folder"):
        read_json(tmp_path, Outer)


def test_a_value_that_json_lacks_leaves_the_old_file(tmp_path):
    path = tmp_path / "outer.json"
    write_json(path, SAMPLE)
    with pytest.raises(ValueError):
        write_json(path, {"share": object()})
    assert read_json(path, Outer) == SAMPLE
