"""Send hostile requests through the page's proxies; compare what was sent with what was told.

    python -m compliance.deployment.through [nginx] [haproxy]

The proxy and the processes stand as docs/deployment.md says.  Every row of tests/hostile and every
spoof is sent over a TLS connection of its own; the application writes down what it is told.  A
difference is anything that a client could use: an address, scheme, host or root path that is not
the truth, a request that was hidden in another, a field that the client may not set, another
client's answer.  Exit status 0 if there is none.
"""

from __future__ import annotations

import json
import re
import ssl
import sys
import time
from collections import defaultdict
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any

from compliance.deployment.page import ROOT
from compliance.deployment.spoofs import AFTER, spoofs
from compliance.deployment.stand import Stand, missing, stand
from tests.hostile.case import Act, Row
from tests.hostile.test_websocket_handshake import BAD

TABLES = ("syntax", "framing", "connection", "sizes", "rules", "smuggling")
#: Seconds of silence after which no more is expected on a connection.
QUIET = 0.7
#: Connections at a time.
AT_A_TIME = 16

ASGI = f"""
import sys
sys.path.insert(0, {str(ROOT)!r})
from compliance.deployment.recorder import application
"""

#: What the page's proxies tell: each exactly once, and the truth.
TOLD = {"x-forwarded-for", "x-forwarded-port", "x-forwarded-proto"}
#: What no client may tell.
FORBIDDEN = {"x-forwarded-host", "x-forwarded-prefix", "x-real-ip", "forwarded", "daphne-root-path"}
#: What a proxy writes anew for its own connection.
HOP = {"connection", "content-length", "transfer-encoding", "upgrade", "keep-alive", "host"}

_BLANKS = re.compile(rb"\s+")
_AUTHORITY = re.compile(r"^[A-Za-z][A-Za-z0-9+.-]*://[^/?]*")
_LINE = re.compile(rb"^\s*(\S+)[ \t]+(\S+)")


@dataclass(slots=True)
class Case:
    """One connection's worth of bytes, and what of it may reach the application."""

    id: str
    steps: tuple[bytes | Act, ...]
    #: `METHOD target` of every request that this connection openly sends.
    targets: set[str]
    most: int
    port: int = 0
    received: bytes = b""
    told: list[dict[str, Any]] = field(default_factory=list)

    @property
    def sent(self) -> bytes:
        return b"".join(step for step in self.steps if isinstance(step, bytes))


def open_request(data: bytes) -> str:
    """`METHOD target` of the first line, as the most lenient reader reads it."""
    match = _LINE.match(data)
    if match is None:
        return ""
    method, target = match[1].decode("latin-1"), match[2].decode("latin-1")
    return f"{method} {_AUTHORITY.sub('', target) or '/'}"


def from_row(row: Row) -> Case:
    steps = (row.steps,) if isinstance(row.steps, bytes) else row.steps
    notes = [outcome.seen for outcome in row.right]
    named = {note.rsplit(" ", 1)[0] for seen in notes for note in seen}
    sent = b"".join(step for step in steps if isinstance(step, bytes))
    targets = named | {open_request(sent)}
    if sent.endswith(AFTER):
        # The connection's last bytes: hidden from no reader.
        targets.add("GET /after")
    return Case(row.id, steps, targets, max(len(targets), *(len(seen) for seen in notes)))


def cases() -> list[Case]:
    found = []
    for name in TABLES:
        for table in vars(import_module(f"tests.hostile.test_http_{name}")).values():
            if isinstance(table, list):
                found += [from_row(row) for row in table if isinstance(row, Row)]
    found += [Case(bad.id, (bad.data,), {open_request(bad.data)}, 1) for bad in BAD]
    for name, data in spoofs():
        targets = {open_request(data)}
        if data.endswith(AFTER):
            targets.add("GET /after")
        if name.startswith("upgrade"):
            # Behind an upgrade that failed it is the next request, which the proxy must see too.
            targets.add("GET /smuggled")
        found.append(Case(name, (data,), targets, len(targets)))
    return found


def play(place: Stand, case: Case, used: set[int]) -> None:
    """Send the case and keep what comes back."""
    with connect(place, used) as client:
        case.port = client.getsockname()[1]
        client.settimeout(QUIET)
        try:
            for step in case.steps:
                if isinstance(step, bytes):
                    client.sendall(step)
                elif step is Act.AWAIT_ANSWER:
                    case.received += client.recv(65536)
            while data := client.recv(65536):
                case.received += data
        except (TimeoutError, ConnectionError, ssl.SSLError):
            return


def connect(place: Stand, used: set[int]) -> ssl.SSLSocket:
    """A connection from a port that no case has had: what was told is found by the port."""
    while True:
        client = place.connect()
        port = client.getsockname()[1]
        if port not in used:
            used.add(port)
            return client
        client.close()


def read_records(folder: Path) -> list[dict[str, Any]]:
    lines: Iterable[str] = (
        line for path in folder.rglob("*.told") for line in path.read_text().splitlines()
    )
    return sorted((json.loads(line) for line in lines), key=lambda told: told["at"])


def differences(case: Case) -> list[str]:
    """What the application was told that is not so, or not what this client sent."""
    found = []
    if len(case.told) > case.most:
        found.append(f"{len(case.told)} requests were made of {case.most}")
    for told in case.told:
        found += _about_the_request(case, told) + _about_the_fields(case, told)
    for port, line in re.findall(rb"told:(\d+):([^;]*);", case.received):
        if int(port) != case.port:
            found.append(f"another client's answer: {line!r}")
    return found


def _about_the_request(case: Case, told: dict[str, Any]) -> list[str]:
    found = []
    if tuple(told["client"] or ()) != ("127.0.0.1", case.port):
        found.append(f"client {told['client']}")
    if told["scheme"] not in {"https", "wss"}:
        found.append(f"scheme {told['scheme']}")
    if told["root_path"]:
        found.append(f"root path {told['root_path']!r}")
    line = f"{told['method']} {told['target']}"
    if line not in case.targets:
        found.append(f"a request that was not openly sent: {line[:80]!r}")
    return found


def _about_the_fields(case: Case, told: dict[str, Any]) -> list[str]:
    found = []
    fields: dict[str, list[str]] = defaultdict(list)
    for name, value in told["headers"]:
        fields[name].append(value)
    truth = {
        "x-forwarded-for": ["127.0.0.1"],
        "x-forwarded-port": [str(case.port)],
        "x-forwarded-proto": ["https"],
    }
    found += [f"{name}: {fields[name]}" for name in TOLD if fields[name] != truth[name]]
    found += [f"{name}: {fields[name]}" for name in FORBIDDEN & fields.keys()]
    found += [f"underscore in {name!r}" for name in fields if "_" in name]
    if len(fields["host"]) > 1:
        found.append(f"hosts {fields['host']}")
    sent = _BLANKS.sub(b" ", case.sent.lower())
    for name, values in fields.items():
        for value in values:
            # Blanks are compared as one: a proxy may join a folded line (RFC 9112 section 5.2).
            wanted = _BLANKS.sub(b" ", value.encode("latin-1").lower())
            if name == "host" and wanted == b"example.com":
                continue  # What nginx tells where the client named none: the name of its server.
            if name not in (TOLD | HOP) - {"host"} and wanted not in sent:
                found.append(f"{name}: {value[:60]!r} was never sent")
    return found


def run(name: str) -> bool:
    """Send everything through one proxy; True if there is no difference."""
    began = time.monotonic()
    every = cases()
    used: set[int] = set()
    with stand(name, {"asgi": ASGI}) as place:
        with ThreadPoolExecutor(AT_A_TIME) as pool:
            for _ in pool.map(lambda case: play(place, case, used), every):
                pass
        for service in place.services:
            service.stop()
        records = read_records(place.folder)
    by_port = {case.port: case for case in every}
    bad: dict[str, list[str]] = defaultdict(list)
    for told in records:
        port = (told["client"] or [None, 0])[1]
        if port in by_port:
            by_port[port].told.append(told)
        else:
            bad[f"nobody's: {told['method']} {told['target'][:40]}"].append(str(told)[:600])
    for case in every:
        if found := differences(case):
            bad[case.id] += found
    print(
        f"{name}: {len(bad)} differences in {len(every)} cases, {len(records)} requests told, "
        f"{time.monotonic() - began:.0f} s"
    )
    for case_id, found in bad.items():
        print(f"  {case_id}: {'; '.join(found)}")
    return not bad and bool(records)


def main() -> int:
    names = tuple(sys.argv[1:]) or ("nginx", "haproxy")
    if absent := missing(names):
        print(f"Not installed: {', '.join(absent)}.  script/packages {' '.join(absent)}")
        return 2
    results = [run(name) for name in names]
    return 0 if all(results) else 1


if __name__ == "__main__":
    sys.exit(main())
