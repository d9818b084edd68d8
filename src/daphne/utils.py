"""Small functions that other packages import from here."""

from __future__ import annotations

from collections.abc import Mapping

from channels.loading import import_by_path

__all__ = ["header_value", "import_by_path", "parse_x_forwarded_for"]

HeaderValue = bytes | list[bytes]


def header_value(headers: Mapping[bytes, HeaderValue], header_name: bytes) -> str:
    """The first value of a header, as text."""
    value = headers[header_name]
    return (value[0] if isinstance(value, list) else value).decode("utf-8").strip()


def parse_x_forwarded_for(
    headers: Mapping[bytes, HeaderValue],
    address_header_name: str | None = "X-Forwarded-For",
    port_header_name: str | None = "X-Forwarded-Port",
    proto_header_name: str | None = "X-Forwarded-Proto",
    original_addr: list[str | int] | None = None,
    original_scheme: str | None = None,
) -> tuple[list[str | int] | None, str | None]:
    """The client's address and the scheme that a proxy's headers tell.

    Of a comma-separated list of addresses the first is taken.  Port and scheme count only beside
    an address; an address without a usable port has port 0.  It trusts whoever sent the headers:
    the server itself asks its `ProxyOptions` first.
    """
    if not address_header_name:
        return original_addr, original_scheme
    found = {name.lower(): value for name, value in headers.items()}

    def told(name: str | None) -> str | None:
        key = name.lower().encode() if name else b""
        return header_value(found, key) if key in found else None

    address = told(address_header_name)
    if address is None:
        return original_addr, original_scheme
    port = told(port_header_name) or ""
    client: list[str | int] = [
        address.split(",")[0].strip(),
        int(port) if port.isascii() and port.isdigit() else 0,
    ]
    return client, told(proto_header_name) or original_scheme
