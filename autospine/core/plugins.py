"""Plug-ins of other distributions, found by entry points: one way to find, load and name them.

A plug-in is imported only when it is asked for by name, so that a broken one affects nothing else; only the
list of all plug-ins imports them. What comes with AutoSpine goes before a plug-in of the same name.
"""

import logging
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from functools import cache
from importlib.metadata import entry_points
from typing import Any

from autospine.core.errors import AutospineError

logger = logging.getLogger(__name__)

KINDS = ("networks", "losses", "metrics", "trackers")
"""Kinds of plug-ins: the groups of their entry points without `autospine.`."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Plugin:
    """An entry point of a group, with the words that messages about it need."""

    entry: Any
    """An entry point: of `importlib.metadata`, or of `importlib_metadata`, which takes its place in a process
    where some library has imported it."""

    kind: str
    """Kind of the object in words, such as `loss`."""

    error: type[AutospineError]
    """Type of the errors that are raised about it."""

    @property
    def distribution(self) -> str:
        """Name and version of the distribution that the plug-in comes from."""
        source = self.entry.dist
        return "unknown" if source is None else f"{source.name} {source.version}"

    @property
    def description(self) -> str:
        """The plug-in with its place and its distribution, for messages."""
        name, place = self.entry.name, self.entry.value
        return f"the {self.kind} {name!r} ({place}) of the distribution {self.distribution}"

    @property
    def remedy(self) -> str:
        """Last words of a message about a plug-in that does not work."""
        return f"mend or uninstall it, or choose another {self.kind}"

    def load(self) -> Any:
        """Return what the entry point names.

        Raises:
            AutospineError: If it cannot be imported, for whatever reason; of the type `error`.
        """
        try:
            return self.entry.load()
        except BaseException as error:  # whatever other people's code raises
            let_interrupts_pass(error)
            raise self.broken("cannot be loaded:", error) from error

    def broken(self, what: str, error: BaseException) -> AutospineError:
        """Return the error to raise about it.

        Args:
            what: What went wrong, such as `cannot be loaded:`; the error follows.
            error: Whatever the plug-in has raised.
        """
        return self.error(f"{self.description} {what} {type(error).__name__}: {error}; {self.remedy}")


def let_interrupts_pass(error: BaseException) -> None:
    """Raise Ctrl-C again, and nothing else that was caught: other people's code may raise what it wants.

    Args:
        error: Error that a plug-in has raised; `SystemExit`, for instance, must not end the program.
    """
    if type(error) is KeyboardInterrupt:
        raise error


def find_plugin(group: str, name: str, *, kind: str, error: type[AutospineError]) -> Plugin:
    """Find the one plug-in of a name.

    Args:
        group: Group of the entry points.
        name: Name of the entry point.
        kind: Kind of the object in words.
        error: Type of the errors that are raised about it.

    Raises:
        AutospineError: If no installed distribution offers it, or several do; of the type `error`.
    """
    found = [Plugin(entry=entry, kind=kind, error=error) for entry in entry_points(group=group, name=name)]
    if len(found) != 1:
        listed = ", ".join(plugin.distribution for plugin in found) or "none"
        raise error(
            f"expected one installed distribution with the {kind} {name!r} among its entry points {group}, "
            f"found {listed}; install one, uninstall the others, or choose another {kind}"
        )
    return found[0]


@cache
def warn_if_hidden(group: str, name: str, kind: str) -> None:
    """Warn, once in a process, of plug-ins that are not used because a built-in object has their name.

    Args:
        group: Group of the entry points.
        name: Name of the built-in object that is chosen.
        kind: Kind of the object in words.
    """
    for entry in entry_points(group=group, name=name):
        logger.warning(
            "%s is hidden by the built-in %s of that name, which is used; rename its entry point to use it",
            Plugin(entry=entry, kind=kind, error=AutospineError).description,
            kind,
        )


def installed_plugins(built_in: Mapping[str, Collection[str]]) -> tuple[tuple[str, str, str, str], ...]:
    """Return kind, name, distribution and fault of every plug-in that is installed.

    The fault is empty for a plug-in that can be chosen. Each one is imported to learn that, unless its name
    is taken.

    Args:
        built_in: Names of the built-in objects by kind, as `KINDS` names them.
    """
    found = entry_points()
    listed = []
    for kind in KINDS:
        entries = sorted(found.select(group=f"autospine.{kind}"), key=lambda entry: entry.name)
        names = [entry.name for entry in entries]
        for entry in entries:
            plugin = Plugin(entry=entry, kind=kind, error=AutospineError)
            if entry.name in built_in.get(kind, ()):
                fault = "hidden by the built-in of that name"
            elif names.count(entry.name) > 1:
                fault = "refused, since several distributions have the name"
            else:
                fault = _import_fault(plugin)
            listed.append((kind, entry.name, plugin.distribution, fault))
    return tuple(listed)


def _import_fault(plugin: Plugin) -> str:
    """Return why a plug-in cannot be imported; empty if it can."""
    try:
        plugin.load()
    except AutospineError as error:
        cause = error.__cause__
        return f"cannot be loaded: {type(cause).__name__}: {cause}"
    return ""


def plugin_names(group: str) -> tuple[str, ...]:
    """Return the names of the plug-ins of a group, each once, in alphabetical order."""
    return tuple(sorted({entry.name for entry in entry_points(group=group)}))
