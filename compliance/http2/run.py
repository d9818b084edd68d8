"""Ask a server all 146 cases, in clear and over TLS.

    python -m compliance.http2.run [CASE ...] [--port N [--tls]]

Without a port it starts `channels serve --http2`, and again with a certificate.  Exit status 0 if
every case passed; a case that did not is shown with what was heard.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import ssl
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from compliance.http2 import generic, hpack, http2
from compliance.http2.case import MARK_PING, Case, Heard
from compliance.overload.site import serving
from tests.wire.http2.frames import Frame, FrameReader

#: A case that takes longer has failed.
CASE_SECONDS = 5.0
CASES: Sequence[Case] = [*generic.CASES, *http2.CASES, *hpack.CASES]

APPLICATION = """
async def application(scope, receive, send):
    if scope["type"] != "http":
        raise RuntimeError("HTTP alone")
    while (event := await receive())["type"] == "http.request":
        if not event["more_body"] and scope["path"] != "/wait":
            break
    else:
        return
    await send({"type": "http.response.start", "status": 200, "headers": []})
    body = bytes(5000) if scope["path"] == "/long" else b"hello"
    await send({"type": "http.response.body", "body": body})
"""


async def ask(case: Case, port: int, tls: ssl.SSLContext | None = None) -> Heard:
    """Play a case; what was heard."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=tls)
    conversation = Conversation(reader)
    try:
        with contextlib.suppress(ConnectionError, TimeoutError):
            async with asyncio.timeout(CASE_SECONDS):
                writer.write(case.begins)
                for part in case.sends[:-1]:
                    writer.write(part + MARK_PING)
                    marks = conversation.marks + 1
                    await conversation.read_until(lambda: conversation.marks >= marks)  # noqa: B023
                writer.write(b"".join(case.sends[-1:]) + MARK_PING)
                before = len(case.sends) - 1
                await conversation.read_until(
                    lambda: case.expects.is_over(conversation.heard(before))
                )
        return conversation.heard(0)
    finally:
        writer.transport.abort()


class Conversation:
    """What comes on one connection."""

    def __init__(self, reader: asyncio.StreamReader) -> None:
        self._reader = reader
        self._frame_reader = FrameReader()
        self._frames: list[Frame] = []
        self._is_closed = False

    @property
    def marks(self) -> int:
        return sum(
            bool(each.flags) and each.payload == MARK_PING[9:]
            for each in self._frames
            if each.kind == MARK_PING[3]
        )

    def heard(self, marks: int) -> Heard:
        """All of it, the answers to so many earlier PINGs left out."""
        frames = (
            self._frames
            if self.marks > marks
            else [each for each in self._frames if each.payload != MARK_PING[9:]]
        )
        return Heard(frames, self._is_closed)

    async def read_until(self, is_over: object) -> None:
        assert callable(is_over)
        while not is_over() and not self._is_closed:
            try:
                data = await self._reader.read(65_536)
            except ConnectionError:
                data = b""
            self._is_closed = not data
            self._frames += self._frame_reader.feed(data)


async def judge(cases: Sequence[Case], port: int, tls: ssl.SSLContext | None) -> list[str]:
    """A line for each case that failed."""
    failed = []
    for case in cases:
        heard = await ask(case, port, tls)
        if not case.expects.holds(heard):
            end = " and the end" if heard.is_closed else ""
            failed.append(
                f"{case.id} {case.title}: expected {case.expects}, heard {heard.frames[-6:]}{end}"
            )
    return failed


def over_tls(cases: Sequence[Case], *options: str) -> list[str]:
    with tempfile.TemporaryDirectory(prefix="tls-") as folder:
        key, certificate = Path(folder) / "key.pem", Path(folder) / "certificate.pem"
        subprocess.run(
            [
                *("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2"),
                *("-subj", "/CN=localhost", "-keyout", str(key), "-out", str(certificate)),
            ],
            check=True,
            capture_output=True,
        )
        files = ("--certificate", str(certificate), "--private-key", str(key))
        with serving(APPLICATION, *files, *options) as site:
            return asyncio.run(judge(cases, site.port, client_context()))


def client_context() -> ssl.SSLContext:
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.set_alpn_protocols(["h2"])
    return context


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("case", nargs="*", help="beginnings of cases' ids, such as http2/6.5")
    parser.add_argument("--port", type=int, help="of a server on this machine that runs already")
    parser.add_argument("--tls", action="store_true", help="it speaks TLS")
    said = parser.parse_args()
    chosen = tuple(said.case or [""])
    cases = [case for case in CASES if case.id.startswith(chosen)]
    if said.port is not None:
        tls = client_context() if said.tls else None
        found = {"the server": asyncio.run(judge(cases, said.port, tls))}
    else:
        with serving(APPLICATION, "--http2") as site:
            clear = asyncio.run(judge(cases, site.port, None))
        found = {"in clear": clear, "over TLS": over_tls(cases)}
    print(
        ", ".join(
            f"{len(cases) - len(failed)} of {len(cases)} {how}" for how, failed in found.items()
        )
    )
    for how, failed in found.items():
        for line in failed:
            print(f"  {how}: {line}")
    return 1 if any(found.values()) else 0


if __name__ == "__main__":
    sys.exit(main())
