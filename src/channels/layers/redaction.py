"""What an error or a log line may say of settings that hold passwords, tokens and keys.

An error about an address never shows the address: most often it is the password itself, with a "/"
or a "#" that is not escaped, which makes it unreadable.  It names the option, the place in a list,
and what is expected.  What a driver says of it is shown without the words of the setting.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping
from typing import Any, Final
from urllib.parse import SplitResult, unquote, urlsplit

from channels.exceptions import InvalidChannelLayerError
from channels.kit.printable import printable

HIDDEN: Final = "***"
_ESCAPES: Final = (
    'Not shown, for it may hold a password; in one, "/", "?", "#", "@", ":", "[" and "%" are '
    "written as %2F, %3F, %23, %40, %3A, %5B and %25"
)
_DELIMITERS: Final = re.compile(r"[/:@?#&=\s'\"\[\]]+")
#: What is no secret, and would make holes in a driver's sentence.
_HARMLESS: Final = frozenset(
    ("redis", "rediss", "unix", "amqp", "amqps", "nats", "tls", "postgresql")
)


def split_url(url: Any, schemes: Collection[str], *, option: str, expected: str) -> SplitResult:
    """The parts of a URL, of which the port is a number or None.

    Raises:
        InvalidChannelLayerError: If it is none; without its text, also in the errors behind.
    """
    try:
        parts = urlsplit(url) if isinstance(url, str) else None
        is_readable = parts is not None and (parts.port is None or parts.port >= 0)
    except ValueError:
        parts, is_readable = None, False
    # Raised outside of the handler: that error has the text, and would be this one's context.
    if not isinstance(url, str):
        raise InvalidChannelLayerError(
            f"{option} has a value of type {type(url).__name__}: {expected}."
        )
    if parts is None or not is_readable:
        raise InvalidChannelLayerError(
            f"{option} has a URL that is unreadable: {expected}. {_ESCAPES}."
        )
    if parts.scheme not in schemes:
        raise InvalidChannelLayerError(
            f"{option} has a URL without one of the schemes {', '.join(schemes)}: {expected}. "
            f"{_ESCAPES}."
        )
    if parts.scheme != "unix" and "@" not in parts.netloc and "@" in parts.path:
        raise InvalidChannelLayerError(
            f'{option} has a URL with an "@" after the host: {expected}. {_ESCAPES}.'
        )
    return parts


def without_secrets(text: object, *settings: Any) -> str:
    """A driver's text without the words of these settings, on one line, and not too long.

    The names of keys, and of parameters in a URL's query, are words that it may hold.
    """
    said = str(text)
    words = {word for value in settings for word in _words(value)} - _HARMLESS
    for word in sorted(words, key=len, reverse=True):
        said = said.replace(word, HIDDEN)
    return printable(said)


def _words(value: Any) -> Iterator[str]:
    if isinstance(value, Mapping):
        for part in value.values():
            yield from _words(part)
    elif isinstance(value, bytes):
        yield from _words(value.decode(errors="replace"))
    elif isinstance(value, str):
        yield from _words_of_text(value)
    elif isinstance(value, Collection):
        for part in value:
            yield from _words(part)


def _words_of_text(text: str) -> Iterator[str]:
    if not text:
        return
    yield text
    query = text.partition("?")[2]
    # With an "@" there, what looks like a query is the rest of a password.
    names = set() if "@" in query else {pair.partition("=")[0] for pair in query.split("&")}
    yield from {*_DELIMITERS.split(text), *_DELIMITERS.split(unquote(text))} - names - {""}
