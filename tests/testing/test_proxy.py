"""The proxy breaks what it is told to break, and nothing else."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from channels.testing.proxy import Address, ChaosProxy

Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
    except ConnectionError:
        pass
    finally:
        writer.close()


@pytest.fixture(params=["tcp", "unix"])
async def proxy(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[ChaosProxy]:
    target: Address
    if request.param == "unix":
        target = str(tmp_path / "echo")
        server = await asyncio.start_unix_server(echo, target)
    else:
        server = await asyncio.start_server(echo, "127.0.0.1", 0)
        target = server.sockets[0].getsockname()
    path = str(tmp_path / "proxy") if request.param == "unix" else None
    async with ChaosProxy(target, path=path) as proxy:
        yield proxy
    server.close()
    await asyncio.sleep(0.01)


async def connect(proxy: ChaosProxy) -> Streams:
    if isinstance(proxy.address, str):
        return await asyncio.open_unix_connection(proxy.address)
    return await asyncio.open_connection(*proxy.address)


async def says(streams: Streams, data: bytes) -> bytes:
    reader, writer = streams
    writer.write(data)
    return await asyncio.wait_for(reader.readexactly(len(data)), 5)


async def is_silent(reader: asyncio.StreamReader) -> bool:
    try:
        await asyncio.wait_for(reader.read(1), 0.05)
    except TimeoutError:
        return True
    return False


async def test_it_passes_bytes_on(proxy: ChaosProxy) -> None:
    streams = await connect(proxy)
    assert await says(streams, b"x" * 300_000) == b"x" * 300_000
    assert len(proxy) == proxy.accepted == 1
    streams[1].close()


async def test_cut_ends_all_and_the_next_is_let_in(proxy: ChaosProxy) -> None:
    first = await connect(proxy)
    await says(first, b"a")
    assert proxy.cut() == 1
    with pytest.raises((asyncio.IncompleteReadError, ConnectionError)):
        await says(first, b"b")
    first[1].close()
    second = await connect(proxy)
    assert await says(second, b"c") == b"c"
    second[1].close()


async def test_refuse_and_accept(proxy: ChaosProxy) -> None:
    old = await connect(proxy)
    await says(old, b"a")
    proxy.refuse()
    with pytest.raises(OSError):  # noqa: PT011 - which one depends on the family
        await connect(proxy)
    assert await says(old, b"b") == b"b"
    await proxy.accept()
    new = await connect(proxy)
    assert await says(new, b"c") == b"c"
    for streams in (old, new):
        streams[1].close()


async def test_what_is_sent_into_a_stall_comes_after_it(proxy: ChaosProxy) -> None:
    reader, writer = await connect(proxy)
    await says((reader, writer), b"a")
    proxy.stall()
    writer.write(b"late")
    assert await is_silent(reader)
    proxy.heal()
    assert await reader.readexactly(4) == b"late"
    writer.close()


async def test_what_is_swallowed_never_comes(proxy: ChaosProxy) -> None:
    reader, writer = await connect(proxy)
    await says((reader, writer), b"a")
    proxy.swallow()
    writer.write(b"gone")
    assert await is_silent(reader)
    proxy.heal()
    assert await says((reader, writer), b"here") == b"here"
    writer.close()


async def test_a_delay_keeps_the_order(proxy: ChaosProxy) -> None:
    streams = await connect(proxy)
    proxy.delay = 0.02
    streams[1].write(b"a")
    await asyncio.sleep(0.005)
    proxy.delay = 0.0
    assert await says(streams, b"bc") == b"ab"
    assert await streams[0].readexactly(1) == b"c"
    streams[1].close()
