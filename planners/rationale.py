"""The reasons of a plan: how decisions are noted and printed."""

from collections.abc import Iterable, Sequence

from autospine.plan import Decision

Note = tuple[str, object, str]
"""Name, value and reason of a decision."""


def decisions(notes: Iterable[Note], prefix: str = "") -> list[Decision]:
    """Return notes as decisions of a plan, their names after a prefix such as `fullres.`."""
    return [
        Decision(name=f"{prefix}{name}", value=readable(value), reason=reason)
        for name, value, reason in notes
    ]


def readable(value: object) -> str:
    """Return triples as 1x2x3, and lists of triples separated by commas."""
    if isinstance(value, Sequence) and not isinstance(value, str):
        separator = "x" if all(isinstance(item, int | float) for item in value) else ", "
        return separator.join(readable(item) for item in value)
    return f"{value:g}" if isinstance(value, float) else str(value)
