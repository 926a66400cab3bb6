"""Strict JSON for the files between the stages.

Dataclasses are written as plain JSON and checked when they are read: unknown keys, missing keys and wrong
types are refused, all of them in one message. Only this module imports pydantic.
"""

import json
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any, TypeVar, get_args

from pydantic import ConfigDict, Discriminator, TypeAdapter, ValidationError

from autospine.core.errors import FormatError
from autospine.storage.atomic import write_text

T = TypeVar("T")


def told_apart_by(key: str) -> object:
    """Return the annotation of a union of dataclasses that the `Literal` field `key` tells apart."""
    return Discriminator(key)


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
        FormatError: If entries do not fit; lists all of them.
    """
    try:
        value: T = _adapter(kind).validate_json(text, strict=True)
        return value
    except ValidationError as error:
        raise FormatError(
            f"expected {kind.__name__} in {source}, found {_problems(error)}; "
            "restore the file or make it again"
        ) from None


def from_plain(content: object, kind: type[T], source: str) -> T:
    """Check plain lists, mappings, numbers and texts, as people write them in YAML.

    Raises:
        FormatError: If entries do not fit; lists all of them.
    """
    try:
        value: T = _adapter(kind).validate_json(json.dumps(content), strict=True)
        return value
    except (ValidationError, TypeError) as error:
        found = _problems(error) if isinstance(error, ValidationError) else error
        raise FormatError(f"expected {kind.__name__} in {source}, found {found}; mend the file") from None


def write_json(path: Path, value: object) -> None:
    """Write `value` as JSON so that the file is either complete or unchanged."""
    write_text(path, to_json(value))


def read_json(path: Path, kind: type[T]) -> T:
    """Read what `write_json` wrote.

    Raises:
        FormatError: If the file is missing, damaged or holds something else.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise FormatError(f"expected a readable {kind.__name__} at {path}, found {error}") from None
    return from_json(text, kind, str(path))


def _problems(error: ValidationError) -> str:
    places = (".".join(map(str, problem["loc"])) or "file" for problem in error.errors())
    texts = (problem["msg"].removeprefix("Value error, ") for problem in error.errors())
    return "; ".join(f"{place}: {text}" for place, text in zip(places, texts, strict=True))


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
    """Mark a dataclass and those inside it so that pydantic refuses unknown keys."""
    if kind in seen:
        return
    seen.add(kind)
    for inner in get_args(kind):
        if isinstance(inner, type) or get_args(inner):
            _forbid_extra(inner, seen)
    if is_dataclass(kind) and isinstance(kind, type):
        # pydantic reads this attribute of standard dataclasses as their configuration.
        kind.__pydantic_config__ = ConfigDict(extra="forbid")  # type: ignore[attr-defined]
        for field in fields(kind):
            _forbid_extra(field.type, seen)
