"""Endpoint strings: what host, port, socket and descriptor become."""

from __future__ import annotations

from typing import Any

import pytest

from daphne.endpoints import build_endpoint_description_strings


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({}, []),
        ({"host": "127.0.0.1", "port": 8000}, ["tcp:port=8000:interface=127.0.0.1"]),
        ({"host": "127.0.0.1", "port": 0}, ["tcp:port=0:interface=127.0.0.1"]),
        ({"host": "200a::1", "port": 80}, [r"tcp:port=80:interface=200a\:\:1"]),
        ({"host": "[200a::1]", "port": 80}, [r"tcp:port=80:interface=200a\:\:1"]),
        ({"unix_socket": "/tmp/site.sock"}, ["unix:/tmp/site.sock"]),
        ({"unix_socket": "/tmp/a:b"}, [r"unix:/tmp/a\:b"]),
        ({"file_descriptor": 5}, ["fd:fileno=5"]),
        ({"file_descriptor": 0}, ["fd:fileno=0"]),
        (
            {"host": "0.0.0.0", "port": 1, "unix_socket": "/s", "file_descriptor": 3},
            ["tcp:port=1:interface=0.0.0.0", "unix:/s", "fd:fileno=3"],
        ),
    ],
)
def test_strings(given: dict[str, Any], expected: list[str]) -> None:
    assert build_endpoint_description_strings(**given) == expected


@pytest.mark.parametrize("given", [{"host": "127.0.0.1"}, {"port": 8000}, {"port": 0}])
def test_half_an_address_is_refused(given: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="both host and port"):
        build_endpoint_description_strings(**given)
