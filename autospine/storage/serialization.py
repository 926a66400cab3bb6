"""Strict JSON for the files between the stages.

Dataclasses are written as plain JSON and checked when they are read: unknown keys, missing keys and wrong
types are refused, the first of them in one message. Only this module imports pydantic.
"""

import json
import re
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Annotated, Any, TypeVar, get_args

from annotated_types import Interval, MaxLen
from pydantic import AfterValidator, ConfigDict, Discriminator, FailFast, TypeAdapter, ValidationError
from pydantic_core import from_json as parse
from typing_extensions import is_typeddict

from autospine.core.errors import FormatError, listed, shortened
from autospine.storage.atomic import write_text
from autospine.storage.file_names import LARGEST_TEXT, folder_name_fault, name_fault, read_text

T = TypeVar("T")

PROBLEMS_MENTIONED = 5
"""Most kinds of faults that a message about the structure of a file lists."""

_BOUNDS = {
    "greater_than_equal": "at least",
    "greater_than": "more than",
    "less_than_equal": "at most",
    "less_than": "less than",
}
"""Pydantic's names of bounds, and ours."""

_WANTED = {
    "string": "a text",
    "int": "a whole number",
    "float": "a number",
    "finite": "a finite number",
    "bool": "true or false",
    "list": "a list",
    "tuple": "a list",
    "dict": "an object",
    "dataclass": "an object",
    "none": "null",
}
"""Beginnings of Pydantic's names of wrong types, and what is expected instead."""

_KINDS: dict[Any, tuple[str, int]] = {}
"""For each kind of file its name in messages, and the most bytes of its JSON."""


def told_apart_by(key: str) -> object:
    """Return the annotation of a union of dataclasses that the `Literal` field `key` tells apart."""
    return Discriminator(key)


def between(low: float, high: float) -> object:
    """Return the annotation of a number that is refused outside of [low, high] when it is read."""
    return Interval(ge=low, le=high)


def above(low: float, high: float) -> object:
    """Return the annotation of a number that is refused outside of (low, high] when it is read."""
    return Interval(gt=low, le=high)


def at_most(entries: int) -> object:
    """Return the annotation of a list or mapping that is refused with more entries when it is read."""
    return MaxLen(entries)


def many() -> object:
    """Return the annotation of a long list, of which only the first faulty entry is reported."""
    return _FirstFault()


class _FirstFault(FailFast):
    """Pydantic's mark of lists that are read up to the first fault, hashable as annotations have to be."""

    __hash__ = object.__hash__


def stored_as(name: str, largest: int = LARGEST_TEXT) -> Callable[[type[T]], type[T]]:
    """Return the decorator of a dataclass that is the content of a file.

    Args:
        name: Name of the kind of file in messages, with its article.
        largest: Most bytes of its JSON; a larger file is refused before it is read.
    """

    def register(kind: type[T]) -> type[T]:
        _KINDS[kind] = (name, largest)
        return kind

    return register


def _checked_name(name: str) -> str:
    if fault := name_fault(name):
        raise ValueError(f"expected the name of a file, found {fault}")
    return name


def _checked_folder_name(name: str) -> str:
    if fault := folder_name_fault(name):
        raise ValueError(f"expected the name of a folder, found {fault}")
    return name


def _checked_ending(ending: str) -> str:
    if not re.fullmatch(r"(?:\.\w{1,16}){1,3}", ending):
        raise ValueError("expected the ending of a file, such as .nii.gz")
    return ending


FileName = Annotated[str, AfterValidator(_checked_name)]
"""Name that a file is made of, checked when it is read."""

FolderName = Annotated[str, AfterValidator(_checked_folder_name)]
"""Name of a folder, checked when it is read."""

FileEnding = Annotated[str, AfterValidator(_checked_ending)]
"""Ending of files, with its dot, checked when it is read."""


def to_json(value: object) -> str:
    """Render a value of dataclasses and plain types as indented JSON, ending in a newline."""
    plain = TypeAdapter(type(value)).dump_python(value, mode="json")
    return _render(plain, "") + "\n"


def from_json(text: str, kind: type[T], source: str) -> T:
    """Parse and check JSON.

    Args:
        text: The JSON text.
        kind: Dataclass, or any other annotated type, to make.
        source: Name of the text's origin, for messages.

    Raises:
        FormatError: If entries do not fit; lists the first of them.
    """
    name, largest = _described(kind)
    if len(text) > largest:
        raise _too_large(name, source, largest)
    try:
        value: T = _adapter(kind).validate_json(text, strict=True)
        return value
    except ValidationError as error:
        raise FormatError(
            f"expected {name} in {source}, found {_problems(error)}; restore the file or make it again"
        ) from None


def from_plain(content: object, kind: type[T], source: str) -> T:
    """Check plain lists, mappings, numbers and texts, as people write them in YAML.

    Raises:
        FormatError: If entries do not fit; lists the first of them.
    """
    name, _ = _described(kind)
    try:
        value: T = _adapter(kind).validate_json(json.dumps(content), strict=True)
        return value
    except (ValidationError, TypeError, ValueError, RecursionError) as error:
        found = _problems(error) if isinstance(error, ValidationError) else error
        raise FormatError(f"expected {name} in {source}, found {found}; mend the file") from None


def parse_json(text: str | bytes) -> Any:
    """Parse JSON of any structure into plain lists, mappings, numbers and texts.

    Raises:
        ValueError: If it is no JSON, or nested deeper than any file has reason to be.
    """
    try:
        return parse(text)
    except ValueError as error:
        raise ValueError(f"no JSON ({error})") from None


def check_keys(text: str) -> None:
    """Refuse JSON with a key that an object has twice, of which a parser would take the last.

    Args:
        text: JSON that `parse_json` reads.

    Raises:
        ValueError: If there is such a key; names it.
    """

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        for key, count in Counter(key for key, _ in pairs).items():
            if count > 1:
                raise ValueError(f"the key {shortened(key)!r} {count} times")
        return {}

    json.loads(text, object_pairs_hook=unique, parse_int=str)


def write_json(path: Path, value: object) -> None:
    """Write `value` as JSON so that the file is either complete or unchanged."""
    write_text(path, to_json(value))


def read_json(path: Path, kind: type[T]) -> T:
    """Read what `write_json` wrote.

    Raises:
        FormatError: If the file is missing, damaged, too large or holds something else.
    """
    name, largest = _described(kind)
    try:
        text = read_text(path, largest)
    except OSError as error:
        raise FormatError(f"expected {name} at {path}, found {error}; restore it or make it again") from None
    return from_json(text, kind, str(path))


def _problems(error: ValidationError) -> str:
    """List the first faults, each with its place; those of one kind in one list are counted."""
    alike: dict[tuple[object, ...], list[str]] = {}
    for problem in error.errors(include_url=False):
        kind = problem["type"]
        place = ".".join(str(part)[:100] for part in problem["loc"]) or "the file"
        said = _said(kind, problem["msg"], problem.get("ctx", {}), problem["input"])
        text = said if kind == "json_invalid" else f"{place} {said}"
        where = tuple("*" if isinstance(part, int) else part for part in problem["loc"])
        alike.setdefault((*where, kind), []).append(shortened(text))
    return listed(
        [first + (f" (and {len(more)} more like it)" if more else "") for first, *more in alike.values()],
        PROBLEMS_MENTIONED,
        "; ",
    )


def _said(kind: str, message: str, context: Mapping[str, Any], found: object) -> str:
    """Say what is wrong with a value, after its place.

    Args:
        kind: Pydantic's name of the fault.
        message: Pydantic's words, which stand where there are none of ours.
        context: What the fault is about, such as a bound.
        found: The value.
    """
    if kind == "json_invalid":
        return f"no JSON ({context['error']})"
    if kind.startswith("missing"):
        return "is missing"
    if kind in ("unexpected_keyword_argument", "extra_forbidden", "union_tag_invalid"):
        return "is not known"
    if kind in ("too_long", "too_short"):
        bound = context.get("max_length", context.get("min_length"))
        limit = "most" if kind == "too_long" else "least"
        return f"has {context['actual_length']} entries, at {limit} {bound} are allowed"
    for name, words in _BOUNDS.items():
        if kind == name:
            return f"is {_shown(found)}, {words} {next(iter(context.values()))} is allowed"
    if kind == "literal_error":
        return f"is {_shown(found)}, expected {context['expected']}"
    if wanted := next((words for part, words in _WANTED.items() if kind.startswith(part)), None):
        return f"is {_shown(found)}, expected {wanted}"
    return f"is wrong: {message.removeprefix('Value error, ')}"


def _shown(found: object) -> str:
    """Return a value as JSON has it, or what kind of value it is."""
    if isinstance(found, dict):
        return "an object"
    if isinstance(found, list):
        return f"a list of {len(found)}"
    return shortened(json.dumps(found, ensure_ascii=False, default=str), 60)


def _described(kind: Any) -> tuple[str, int]:
    """Return the name of a kind of file in messages and the most bytes of its JSON."""
    return _KINDS.get(kind, ("JSON", LARGEST_TEXT))


def _too_large(name: str, source: str, largest: int) -> FormatError:
    return FormatError(
        f"expected {name} of at most {largest >> 20} MiB in {source}, found more; restore it or make it again"
    )


def _render(value: Any, indent: str) -> str:
    """Render JSON with one entry per line, but short lists of numbers and texts on one line."""
    inner = indent + "  "
    if isinstance(value, dict) and value:
        rows = [
            f"{inner}{json.dumps(key, ensure_ascii=False)}: {_render(item, inner)}"
            for key, item in value.items()
        ]
        return "{\n" + ",\n".join(rows) + f"\n{indent}}}"
    if isinstance(value, list):
        rows = [_render(item, inner) for item in value]
        if sum(map(len, rows)) < 80 and not any("\n" in row for row in rows):
            return "[" + ", ".join(rows) + "]"
        return "[\n" + ",\n".join(inner + row for row in rows) + f"\n{indent}]"
    return json.dumps(value, ensure_ascii=False, allow_nan=False)


_ADAPTERS: dict[Any, Any] = {}


def _adapter(kind: Any) -> Any:
    if kind not in _ADAPTERS:
        _forbid_extra(kind, set())
        _ADAPTERS[kind] = TypeAdapter(kind)
    return _ADAPTERS[kind]


def _forbid_extra(kind: Any, seen: set[Any]) -> None:
    """Mark a dataclass and those inside it so that pydantic refuses unknown keys, which a TypedDict keeps."""
    if kind in seen:
        return
    seen.add(kind)
    if is_typeddict(kind):
        kind.__pydantic_config__ = ConfigDict(extra="allow", allow_inf_nan=False)
        for inner in kind.__annotations__.values():
            _forbid_extra(inner, seen)
    for inner in get_args(kind):
        if isinstance(inner, type) or get_args(inner):
            _forbid_extra(inner, seen)
    if is_dataclass(kind) and isinstance(kind, type):
        # pydantic reads this attribute of standard dataclasses as their configuration.
        config = ConfigDict(extra="forbid", allow_inf_nan=False)
        kind.__pydantic_config__ = config  # type: ignore[attr-defined]
        for field in fields(kind):
            _forbid_extra(field.type, seen)
