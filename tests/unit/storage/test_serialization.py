import json
from dataclasses import dataclass

import makers
import pytest
from hypothesis import given
from hypothesis import strategies as st

from autospine.core.errors import FormatError
from autospine.core.types import Modality, Vector3
from autospine.plan import Plan
from autospine.storage.serialization import from_json, read_json, to_json, write_json


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
    with pytest.raises(FormatError, match=f"{key}: Field required"):
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
    assert all(place in str(caught.value) for place in ("count:", "surplus:", "inner.0.size_mm"))


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
