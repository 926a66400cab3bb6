"""Declarations of options: a field of a dataclass says what the command line needs to know of it.

A field that is annotated with an `Option`, as in `epochs: Annotated[int | None, Option(...)] = None`, is an
option of the commands that take the dataclass. Nothing of the command line is imported here.
"""

from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any, get_type_hints


@dataclass(frozen=True, kw_only=True, slots=True)
class Option:
    """Declaration of an option of the command line."""

    names: tuple[str, ...]
    """Names as they are typed, such as `--fold` and `-f`; a switch may be given as `--roi/--no-roi`."""

    help: str
    """Whole sentences for `--help` and for the manual; the last one states a default that is no value."""

    metavar: str | None = None
    """Placeholder of the value in the help."""

    minimum: float | None = None
    """Smallest value."""

    choices: tuple[str, ...] = ()
    """Words of which one is given; any word if empty."""

    negated: bool = False
    """Whether the switch sets the field to False."""

    takes: type | None = None
    """Type of the value on the command line, where the field has another."""

    read: Callable[[Any], Any] | None = None
    """Turns the value of the command line into that of the field."""


def declarations(kind: type) -> dict[str, tuple[Any, Option]]:
    """Return type and declaration of each field that is an option, by the field's name."""
    hints = get_type_hints(kind, include_extras=True)
    found: dict[str, tuple[Any, Option]] = {}
    for field in fields(kind):
        for extra in getattr(hints[field.name], "__metadata__", ()):
            if isinstance(extra, Option):
                found[field.name] = (hints[field.name].__origin__, extra)
    return found
