r"""Where a server listens, as a string: `type:argument:key=value`, in Twisted's way of writing it.

    tcp:8000                              tcp:port=8000:interface=127.0.0.1
    tcp:port=8000:interface=\:\:1         ssl:443:privateKey=key.pem:certKey=crt.pem
    unix:/run/chat.sock:mode=660          fd:fileno=3
    systemd:domain=INET:index=0           systemd:name=web

`\:`, `\=` and `\\` stand for the character after the backslash.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Literal

from channels.exceptions import InvalidOption

_BACKLOG: Final = 2048
#: Twisted's default: who may connect is a matter of the folder's permissions.
_MODE: Final = 0o666
#: One argument, as far as the next colon that is not escaped.
_ARGUMENT: Final = re.compile(r"((?:[^:\\]|\\.)*)(:|\Z)", re.DOTALL)
_KEY: Final = re.compile(r"([A-Za-z]\w*)=(.*)", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Tls:
    """The files of a certificate, in PEM."""

    private_key: str
    #: The certificate, perhaps followed by its chain; may be the same file as the key.
    certificate: str
    #: More certificates of the chain, if they are in a file of their own.
    chain: str = ""


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One place to listen at; fields that its kind does not use have their defaults."""

    kind: Literal["tcp", "unix", "fd", "systemd"]
    #: An address or name; empty for all IPv4 interfaces.
    host: str = ""
    #: 0 lets the system choose.
    port: int = 0
    path: str = ""
    #: Permissions of a Unix socket.
    mode: int = _MODE
    #: A descriptor; for systemd, the place among those that it passed.
    number: int = 0
    #: systemd's name for a descriptor, in place of the number.
    name: str = ""
    backlog: int = _BACKLOG
    tls: Tls | None = None


def parse_endpoint(text: str) -> Endpoint:
    """The endpoint that a string describes.

    Raises:
        InvalidOption: With what was found and what is expected.
    """
    kind, *arguments = _split(text)
    parser = _PARSERS.get(kind)
    if parser is None:
        raise InvalidOption(
            f"Endpoint {text!r}: found type {kind!r}, expected one of {', '.join(_PARSERS)}."
        )
    positional = [_unescape(part) for part in arguments if not _KEY.fullmatch(part)]
    named = {
        match[1]: _unescape(match[2])
        for part in arguments
        if (match := _KEY.fullmatch(part)) is not None
    }
    fields = _EndpointArguments(text, positional, named)
    endpoint = parser(fields)
    fields.check_used()
    return endpoint


def _split(text: str) -> list[str]:
    parts, place = [], 0
    while True:
        match = _ARGUMENT.match(text, place)
        if match is None:
            raise InvalidOption(f"Endpoint {text!r} ends in a lone backslash.")
        parts.append(match[1])
        if not match[2]:
            return parts
        place = match.end()


def _unescape(text: str) -> str:
    return re.sub(r"\\(.)", r"\1", text, flags=re.DOTALL)


class _EndpointArguments:
    """The arguments of one endpoint string, taken one by one."""

    def __init__(self, text: str, positional: list[str], named: dict[str, str]) -> None:
        self._text = text
        self._positional = positional
        self._named = named

    def take(self, name: str, default: str | None = None, *, first: bool = False) -> str:
        """The argument of this name; `first` may also stand without it, before all others.

        Raises:
            InvalidOption: If there is none and no default.
        """
        if first and self._positional:
            return self._positional.pop(0)
        value = self._named.pop(name, default)
        if value is None:
            raise self.error(f"{name} is missing")
        return value

    def number(self, name: str, default: int | None = None, *, first: bool = False) -> int:
        """The same, as a number."""
        text = self.take(name, None if default is None else str(default), first=first)
        if not (text.isascii() and text.isdigit()):
            raise self.error(f"found {name}={text!r}, expected a number")
        return int(text)

    def port(self) -> int:
        port = self.number("port", first=True)
        if port > 65535:
            raise self.error(f"found port={port}, expected 0 to 65535")
        return port

    def check_used(self) -> None:
        """Complain of what nobody took."""
        rest = [*self._positional, *self._named]
        if rest:
            raise self.error(f"{', '.join(map(repr, rest))} is not understood here")

    def error(self, what: str) -> InvalidOption:
        return InvalidOption(f"Endpoint {self._text!r}: {what}.")


def _tcp(fields: _EndpointArguments, tls: Tls | None = None, interface: str = "") -> Endpoint:
    host = fields.take("interface", interface)
    return Endpoint(
        "tcp",
        host=host[1:-1] if host.startswith("[") and host.endswith("]") else host,
        port=fields.port(),
        backlog=fields.number("backlog", _BACKLOG),
        tls=tls,
    )


def _tcp6(fields: _EndpointArguments) -> Endpoint:
    return _tcp(fields, interface="::")


def _ssl(fields: _EndpointArguments) -> Endpoint:
    # Twisted's: this server speaks TLS 1.2 and newer, without finite fields.
    for name in ("sslmethod", "dhParameters"):
        fields.take(name, "")
    key = fields.take("privateKey")
    tls = Tls(key, fields.take("certKey", key), fields.take("extraCertChain", ""))
    return _tcp(fields, tls)


def _unix(fields: _EndpointArguments) -> Endpoint:
    path = fields.take("address", first=True)
    mode = fields.take("mode", f"{_MODE:o}")
    fields.take("lockfile", "")  # Twisted's; a stale socket is recognised without one.
    if not path or re.fullmatch("[0-7]{3,4}", mode) is None:
        raise fields.error(f"found {path!r} with mode={mode!r}, expected a path and octal digits")
    backlog = fields.number("backlog", _BACKLOG)
    return Endpoint("unix", path=path, mode=int(mode, 8), backlog=backlog)


def _fd(fields: _EndpointArguments) -> Endpoint:
    return Endpoint("fd", number=fields.number("fileno", first=True))


def _systemd(fields: _EndpointArguments) -> Endpoint:
    fields.take("domain", "")  # Twisted's; the descriptor itself tells.
    return Endpoint("systemd", number=fields.number("index", 0), name=fields.take("name", ""))


_PARSERS: Final[dict[str, Callable[[_EndpointArguments], Endpoint]]] = {
    "tcp": _tcp,
    "tcp6": _tcp6,
    "ssl": _ssl,
    "unix": _unix,
    "fd": _fd,
    "systemd": _systemd,
}
