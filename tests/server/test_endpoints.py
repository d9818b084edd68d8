from __future__ import annotations

import re

import pytest

from channels.exceptions import InvalidOption
from channels.server.endpoints import Endpoint, Tls, parse_endpoint


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("tcp:8000", Endpoint("tcp", port=8000)),
        ("tcp:port=8000:interface=127.0.0.1", Endpoint("tcp", "127.0.0.1", 8000)),
        ("tcp:8000:interface=localhost:backlog=5", Endpoint("tcp", "localhost", 8000, backlog=5)),
        (r"tcp:port=80:interface=\:\:1", Endpoint("tcp", "::1", 80)),
        (r"tcp:port=80:interface=[\:\:1]", Endpoint("tcp", "::1", 80)),
        (r"tcp6:port=80:interface=\:\:1", Endpoint("tcp", "::1", 80)),
        ("tcp6:80", Endpoint("tcp", "::", 80)),
        (
            "ssl:443:privateKey=k.pem:certKey=c.pem",
            Endpoint("tcp", port=443, tls=Tls("k.pem", "c.pem")),
        ),
        ("ssl:443:privateKey=both.pem", Endpoint("tcp", port=443, tls=Tls("both.pem", "both.pem"))),
        (
            "ssl:443:privateKey=k.pem:certKey=c.pem:extraCertChain=i.pem:interface=10.0.0.1",
            Endpoint("tcp", "10.0.0.1", 443, tls=Tls("k.pem", "c.pem", "i.pem")),
        ),
        (
            "ssl:443:privateKey=k.pem:sslmethod=TLSv1_2_METHOD:dhParameters=dh.pem",
            Endpoint("tcp", port=443, tls=Tls("k.pem", "k.pem")),
        ),
        ("unix:/run/chat.sock", Endpoint("unix", path="/run/chat.sock")),
        ("unix:address=/run/x:mode=660", Endpoint("unix", path="/run/x", mode=0o660)),
        (r"unix:/run/a\:b\=c\\d", Endpoint("unix", path=r"/run/a:b=c\d")),
        ("fd:fileno=3", Endpoint("fd", number=3)),
        ("fd:3", Endpoint("fd", number=3)),
        ("systemd:domain=INET:index=1", Endpoint("systemd", number=1)),
        ("systemd:name=web", Endpoint("systemd", name="web")),
    ],
)
def test_endpoints(text: str, expected: Endpoint) -> None:
    assert parse_endpoint(text) == expected


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("", "expected one of tcp"),
        ("udp:8000", "found type 'udp'"),
        ("tcp", "port is missing"),
        ("tcp:port=http", "expected a number"),
        ("tcp:port=-1", "expected a number"),
        ("tcp:65536", "expected 0 to 65535"),
        ("tcp:8000:interfaec=x", "'interfaec' is not understood"),
        ("tcp:8000:9000", "'9000' is not understood"),
        ("ssl:443", "privateKey is missing"),
        ("unix:", "expected a path"),
        ("unix:/x:mode=999", "octal"),
        ("fd:fileno=", "expected a number"),
        ("tcp:8000\\", "lone backslash"),
    ],
)
def test_what_is_wrong_is_said(text: str, complaint: str) -> None:
    with pytest.raises(InvalidOption, match=re.escape(complaint)):
        parse_endpoint(text)
