"""One member of a group that reads nothing, among many that do: nobody waits for it."""

from __future__ import annotations

import asyncio
import socket
from contextlib import AsyncExitStack

from channels.generic.websocket import AsyncWebsocketConsumer
from channels.kit.limits import KIB, Limits, Timeouts
from channels.layers import broadcast, get_channel_layer
from tests.server.shell import dial, eventually, request, serve

MEMBERS = 30
MESSAGES = 200
GROUP = "slow_member"


class Member(AsyncWebsocketConsumer):
    """Joins, and says when it is disconnected."""

    joined = 0
    codes: list[int]

    async def connect(self) -> None:
        await self.channel_layer.group_add(GROUP, self.channel_name)
        Member.joined += 1
        await self.accept()

    async def disconnect(self, code: int) -> None:
        await self.channel_layer.group_discard(GROUP, self.channel_name)
        Member.codes.append(code)

    async def big_message(self, event: dict[str, str]) -> None:
        await self.send(event["text"])


async def test_the_others_get_everything_and_the_slow_one_is_cut_off() -> None:
    Member.joined, Member.codes = 0, []
    layer = get_channel_layer()
    assert layer is not None
    bounds = Limits(write_buffer_bytes=64 * KIB)
    async with serve(
        Member.as_asgi(), limits=bounds, timeouts=Timeouts(write_timeout=1.0)
    ) as shell:
        slow = socket.socket()
        slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        slow.setblocking(False)
        loop = asyncio.get_running_loop()
        await loop.sock_connect(slow, ("127.0.0.1", shell.port))
        await loop.sock_sendall(slow, request())
        async with AsyncExitStack() as stack:
            others = [await stack.enter_async_context(dial(shell)) for _ in range(MEMBERS)]
            await eventually(lambda: Member.joined == MEMBERS + 1)
            for number in range(MESSAGES):
                body = f"{number:04d}" + "x" * 20_000
                # Both roads: the ready frame, and the consumer's own handler.
                if number % 2:
                    await broadcast(GROUP, text=body)
                else:
                    await layer.group_send(GROUP, {"type": "big.message", "text": body})
                for member in others:
                    got = await member.read_frame()
                    assert got is not None
                    assert got[1] == body.encode()
            # It never read a byte after its handshake: 3008, "Timeout", and out of the group.
            await eventually(lambda: Member.codes == [3008])
        slow.close()
        await eventually(lambda: len(Member.codes) == MEMBERS + 1)
