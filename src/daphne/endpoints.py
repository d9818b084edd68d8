"""Endpoint strings from a host, a port, a socket's path, a descriptor."""

from __future__ import annotations


def build_endpoint_description_strings(
    host: str | None = None,
    port: int | None = None,
    unix_socket: str | None = None,
    file_descriptor: int | None = None,
) -> list[str]:
    """The strings that `Server(endpoints=...)` takes.

    Raises:
        ValueError: If a host comes without a port, or a port without a host.
    """
    if (not host) != (port is None):
        raise ValueError(
            f"A TCP endpoint needs both host and port: found host={host!r}, port={port!r}."
        )
    strings = []
    if host:
        strings.append(f"tcp:port={port}:interface={_escaped(host.strip('[]'))}")
    if unix_socket:
        strings.append(f"unix:{_escaped(unix_socket)}")
    if file_descriptor is not None:
        strings.append(f"fd:fileno={file_descriptor}")
    return strings


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace(":", "\\:")
