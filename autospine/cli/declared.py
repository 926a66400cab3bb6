"""Options of commands, made of the declarations on a dataclass's fields."""

import inspect
from collections.abc import Callable, Mapping
from dataclasses import fields
from enum import StrEnum
from functools import wraps
from types import NoneType, UnionType
from typing import Annotated, Any, get_args, get_origin

import typer

from autospine.core.declaration import Option, declarations

Command = Callable[..., None]


def takes(kind: type, *, partly: bool = False) -> Callable[[Command], Command]:
    """Give a command the options that a dataclass declares, in the place of its parameter `options`.

    Args:
        kind: The dataclass; the command gets one object of it as `options`.
        partly: Whether the command gets a mapping instead, of those fields whose options were given.
    """
    declared = declarations(kind)
    defaults = {field.name: None if partly else field.default for field in fields(kind)}

    def decorate(command: Command) -> Command:
        """Return the command with the declared options in its signature, which typer reads."""
        parameters = [
            added
            for own in inspect.signature(command).parameters.values()
            for added in (
                [_parameter(name, of, option, defaults[name]) for name, (of, option) in declared.items()]
                if own.name == "options"
                else [own]
            )
        ]

        @wraps(command)
        def with_options(**given: Any) -> None:
            values = {name: _value(given.pop(name), option) for name, (_, option) in declared.items()}
            options = {name: value for name, value in values.items() if value is not None}
            command(**given, options=options if partly else kind(**options))

        keywords = [parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY) for parameter in parameters]
        with_options.__signature__ = inspect.Signature(keywords)  # type: ignore[attr-defined]
        with_options.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
        return with_options

    return decorate


def _parameter(name: str, of: Any, option: Option, default: Any) -> inspect.Parameter:
    """A parameter as typer reads it."""
    taken = _taken(name, of, option)
    if option.negated and default is not None:
        default = not default
    shown = typer.Option(
        *option.names,
        help=option.help,
        metavar=option.metavar,
        min=option.minimum,
        show_default=default is not None and not isinstance(default, bool),
    )
    return inspect.Parameter(
        name,
        inspect.Parameter.KEYWORD_ONLY,
        default=default or None if isinstance(default, tuple) else default,
        annotation=Annotated[taken if default is not None else taken | None, shown],
    )


def _taken(name: str, of: Any, option: Option) -> Any:
    """The type of an option's value on the command line."""
    if option.choices:
        return StrEnum(name, {word: word for word in option.choices})
    if option.takes is not None:
        return option.takes
    if isinstance(of, UnionType):
        (of,) = (part for part in get_args(of) if part is not NoneType)
    if get_origin(of) is tuple and get_args(of)[1:] == (...,):
        return list[get_args(of)[0]]  # type: ignore[misc]
    return of


def _value(given: Any, option: Option) -> Any:
    """The value of a field, of what was given on the command line."""
    if option.negated and given is not None:
        return not given
    value = tuple(given) if isinstance(given, list) else given
    if isinstance(value, StrEnum):
        value = value.value
    if value in (None, ()):
        return None
    return option.read(value) if option.read else value


Given = Mapping[str, Any]
"""Values of the fields of a dataclass whose options were given."""
