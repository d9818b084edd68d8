"""Options declared once.

An option is a field of a frozen dataclass, made by `option(...)`: default, unit, bounds, help.
Command-line flags, environment variables, Django settings and the tables in the docs are derived
from that declaration; nothing else repeats a default.

    @dataclass(frozen=True, slots=True)
    class Timeouts:
        ping_interval: float | None = option(20.0, unit="seconds", minimum=0.1, none="never ping",
                                             help="how often an open WebSocket is pinged")
"""

from __future__ import annotations

import argparse
import dataclasses
import difflib
import re
import types
import typing
from collections.abc import Container, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final, NoReturn, TypeVar

from channels.exceptions import InvalidOption

T = TypeVar("T")

_KEY = "channels.option"
_PREFIX: Final = "CHANNELS_"
_TRUE = frozenset({"1", "true", "yes", "on"})
_FALSE = frozenset({"0", "false", "no", "off"})
_NONE = frozenset({"", "none", "never"})
#: Units of what is counted and not measured: said in the help alone.
_COUNTS: Final = frozenset({"number", "level"})
#: What Kubernetes puts into CHANNELS_PORT for a Service that is called "channels".
_SERVICE_LINK: Final = re.compile(r"(tcp|udp|sctp)://")
#: Its other variables for Services whose names begin so.
_SERVICE_VARIABLE: Final = re.compile(
    r"CHANNELS_(\w+_)?(SERVICE_(HOST|PORT(_\w+)?)|PORT_\d+_(TCP|UDP|SCTP)(_\w+)?)"
)


_KINDS: Final[Mapping[Any, str]] = {
    bool: "true or false",
    int: "an integer",
    float: "a number",
}


@dataclass(frozen=True, slots=True)
class Declaration:
    """What is said of an option beside its name, type and default."""

    help: str
    unit: str = ""
    minimum: float | None = None
    maximum: float | None = None
    choices: tuple[str, ...] = ()
    #: What None means; empty if None is not allowed.
    none: str = ""
    #: The command-line flag where it is not the name with hyphens.
    flag: str = ""
    #: A second flag of one letter.
    short: str = ""


@dataclass(frozen=True, slots=True)
class Option:
    """One option of a class, as the derived forms see it."""

    name: str
    type: Any
    default: Any
    declaration: Declaration

    @property
    def flag(self) -> str:
        return self.declaration.flag or "--" + self.name.replace("_", "-")

    @property
    def variables(self) -> tuple[str, ...]:
        """Its environment variables, the first before the second: by its flag and by its name."""
        by_flag = _PREFIX + self.flag.lstrip("-").replace("-", "_").upper()
        by_name = _PREFIX + self.name.upper()
        return (by_flag,) if by_flag == by_name else (by_flag, by_name)

    def parse(self, text: str) -> Any:
        """The value that `text` (a flag's or an environment variable's) stands for."""
        kind = self.type
        if self.declaration.none and text.strip().lower() in _NONE:
            return None
        try:
            if kind is bool:
                return _parse_bool(text)
            if kind is str:
                return text
            if typing.get_origin(kind) is tuple:
                return tuple(part.strip() for part in text.split(",") if part.strip())
            return kind(text)
        except ValueError:
            expected = _KINDS.get(kind, str(kind))
            raise InvalidOption(f"{self.name}={text!r}: expected {expected}.") from None

    def check(self, value: Any) -> None:
        """Compare a value with the declaration.

        Raises:
            InvalidOption: With what was found and what is allowed.
        """
        said = self.declaration
        if value is None:
            if not said.none:
                raise InvalidOption(f"{self.name} may not be None.")
            return
        if said.choices and value not in said.choices:
            raise InvalidOption(
                f"{self.name}={value!r}: expected one of {', '.join(said.choices)}."
            )
        if self.type in {int, float} and (
            isinstance(value, bool) or not isinstance(value, (int, float))
        ):
            kind = "an integer" if self.type is int else "a number"
            raise InvalidOption(f"{self.name}={value!r}: expected {kind}{self._of(', in ')}.")
        if said.minimum is not None and value < said.minimum:
            raise InvalidOption(f"{self.name}={value!r}: the least is {said.minimum}{self._of()}.")
        if said.maximum is not None and value > said.maximum:
            raise InvalidOption(f"{self.name}={value!r}: the most is {said.maximum}{self._of()}.")

    def _of(self, before: str = " ") -> str:
        unit = self.declaration.unit
        return f"{before}{unit}" if unit and unit not in _COUNTS else ""


def option(  # noqa: PLR0913 - one keyword for each thing to say
    default: Any,
    *,
    help: str,  # noqa: A002 - the word that argparse and click use for it
    unit: str = "",
    minimum: float | None = None,
    maximum: float | None = None,
    choices: tuple[str, ...] = (),
    none: str = "",
    flag: str = "",
    short: str = "",
) -> Any:
    """Declare an option as a dataclass field."""
    said = Declaration(help, unit, minimum, maximum, choices, none, flag, short)
    return dataclasses.field(default=default, metadata={_KEY: said})


def options_of(table: type) -> Iterator[Option]:
    """The options that a dataclass declares, in order."""
    hints = typing.get_type_hints(table)
    for field in dataclasses.fields(table):
        if _KEY in field.metadata:
            kind = _without_none(hints[field.name])
            yield Option(field.name, kind, field.default, field.metadata[_KEY])


def check_options(instance: Any) -> None:
    """Check every option of a dataclass instance: call it in `__post_init__`."""
    for declared in options_of(type(instance)):
        declared.check(getattr(instance, declared.name))


def add_arguments(
    parser: argparse._ActionsContainer, table: type, *, without: Container[str] = ()
) -> None:
    """Add a flag for each option; a flag that is not given leaves no attribute behind.

    The help names the environment variable too, which `from_environment` reads.  The flag of a
    tuple may be given several times; it leaves a list.

    Args:
        without: Names of options that another table has brought.
    """
    for declared in options_of(table):
        if declared.name in without:
            continue
        said = declared.declaration
        unit = f" ({said.unit})" if said.unit else ""
        text = f"{said.help}{unit}; default: {_shown(declared)} [{declared.variables[0]}]"
        text = text.replace("%", "%%")
        flags = [said.short, declared.flag] if said.short else [declared.flag]
        if declared.type is bool:
            parser.add_argument(
                *flags,
                dest=declared.name,
                action=argparse.BooleanOptionalAction,
                default=argparse.SUPPRESS,
                help=text,
            )
        else:
            parser.add_argument(
                *flags,
                dest=declared.name,
                action="extend" if typing.get_origin(declared.type) is tuple else "store",
                type=_as_argument(declared),
                default=argparse.SUPPRESS,
                metavar=said.unit.upper() or declared.name.upper(),
                help=text,
            )


def from_mapping(table: type[T], values: Mapping[str, Any]) -> T:
    """An instance from the keys of `values` that the table declares; others are ignored.

    Raises:
        InvalidOption: If a value is out of bounds.
    """
    names = {declared.name for declared in options_of(table)}
    return table(
        **{
            name: tuple(value) if isinstance(value, list) else value
            for name, value in values.items()
            if name in names
        }
    )


def from_environment(table: type, environ: Mapping[str, str]) -> dict[str, Any]:
    """The values that environment variables give: `CHANNELS_PING_INTERVAL=10` and the like.

    The addresses that Kubernetes puts into such names are passed over.

    Raises:
        InvalidOption: If a variable's value cannot be read or is out of bounds.
    """
    values = {}
    for declared in options_of(table):
        variable = next((name for name in declared.variables if name in environ), "")
        text = environ.get(variable)
        if text is None or (declared.type is int and _SERVICE_LINK.match(text)):
            continue
        try:
            values[declared.name] = value = declared.parse(text)
            declared.check(value)
        except InvalidOption as error:
            raise InvalidOption(f"The environment variable {variable}: {error}") from None
    return values


def unknown_variables(tables: Iterable[type], environ: Mapping[str, str]) -> Iterator[str]:
    """A line for each variable that is named as an option's and is none; nobody reads it.

    Those of Kubernetes for Services of such names are passed over.
    """
    known = {
        variable
        for table in tables
        for declared in options_of(table)
        for variable in declared.variables
    }
    for variable in sorted(environ):
        if (
            not variable.startswith(_PREFIX)
            or variable in known
            or _SERVICE_VARIABLE.fullmatch(variable)
            or _SERVICE_LINK.match(environ[variable])
        ):
            continue
        close = difflib.get_close_matches(variable, known, 1)
        meant = f"; did you mean {close[0]}?" if close else "."
        yield f"No option has the environment variable {variable}: it is ignored{meant}"


class Parser(argparse.ArgumentParser):
    """Says an error first, and where the help is, in place of a page of flags before it."""

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """The same; the command that knows no such flag says so, not the one above it."""
        found, unknown = super().parse_known_args(args, namespace)
        if unknown:
            self.error(f"unrecognized arguments: {' '.join(unknown)}")
        return found, unknown

    def error(self, message: str) -> NoReturn:
        """End the process with status 2."""
        self.exit(2, f"{self.prog}: error: {message}\n{self.prog} --help tells more.\n")


def _as_argument(declared: Option) -> Any:
    def convert(text: str) -> Any:
        try:
            value = declared.parse(text)
            declared.check(value)
        except InvalidOption as error:
            raise argparse.ArgumentTypeError(str(error)) from None
        return value

    return convert


def _shown(declared: Option) -> str:
    if declared.default is None:
        return declared.declaration.none
    if typing.get_origin(declared.type) is tuple:
        return ", ".join(declared.default) or "none"
    return str(declared.default)


def _parse_bool(text: str) -> bool:
    word = text.strip().lower()
    if word in _TRUE:
        return True
    if word in _FALSE:
        return False
    raise ValueError(text)


def _without_none(hint: Any) -> Any:
    if typing.get_origin(hint) in {typing.Union, types.UnionType}:
        kinds = [kind for kind in typing.get_args(hint) if kind is not type(None)]
        return kinds[0] if len(kinds) == 1 else hint
    return hint
