"""Which web pages may open a WebSocket: decorators for consumers of `websocket.connect`."""

from __future__ import annotations

from collections.abc import Callable
from functools import update_wrapper
from typing import Any

from channels.exceptions import DenyConnection
from channels.legacy.sessions import find_message
from channels.security.websocket import AllowedHostsOriginValidator, parse_origin

Consumer = Callable[..., Any]


class BaseOriginValidator:
    """Calls a consumer only for connections whose Origin is valid; denies all others.

    A subclass says which are, by `validate_origin`.
    """

    def __init__(self, func: Consumer) -> None:
        update_wrapper(self, func)
        self.func = func

    def __get__(self, instance: Any, owner: type[Any] | None = None) -> Any:
        """A method of `instance`, where a class-based consumer's method is decorated."""
        if instance is None:
            return self
        return type(self)(self.func.__get__(instance, owner))

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Call the consumer.

        Raises:
            DenyConnection: If the message has no Origin, or not a valid one.
        """
        message = find_message(args)
        if not self.validate_origin(message, self.get_origin(message)):
            raise DenyConnection
        return self.func(*args, **kwargs)

    def get_origin(self, message: Any) -> str:
        """The Origin of a connection.

        Raises:
            DenyConnection: If there is none, or more than one, or it is no ASCII.
        """
        found = [value for name, value in message.get("headers") or () if name == b"origin"]
        # Two of them: whoever sits before this server may have judged by the other one.
        if len(found) != 1:
            raise DenyConnection
        try:
            text: str = found[0].decode("ascii")
        except UnicodeDecodeError:
            raise DenyConnection from None
        return text

    def validate_origin(self, message: Any, origin: str) -> bool:
        """True if the connection may be made.

        Raises:
            NotImplementedError: Here; subclasses override it.
        """
        raise NotImplementedError(
            f"{type(self).__qualname__} must define validate_origin(message, origin)."
        )


class AllowedHostsOnlyOriginValidator(BaseOriginValidator):
    """Lets pages of the hosts in ALLOWED_HOSTS open connections."""

    _validator = AllowedHostsOriginValidator(None)

    def validate_origin(self, message: Any, origin: str) -> bool:  # noqa: ARG002
        """True if the Origin's host is in ALLOWED_HOSTS."""
        parsed = parse_origin(origin.encode())
        return parsed is not None and self._validator.valid_origin(parsed)


allowed_hosts_only = AllowedHostsOnlyOriginValidator
