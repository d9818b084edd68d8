"""Many waiting messages leave the loop its turns."""

import asyncio

import pytest

from channels.layers import InMemoryChannelLayer


@pytest.mark.parametrize("is_own", [True, False])
async def test_a_reader_of_many_waiting_messages_lets_others_run(is_own: bool) -> None:
    layer = InMemoryChannelLayer(capacity=2000)
    channel = await layer.new_channel() if is_own else "work"
    for number in range(2000):
        await layer.send(channel, {"type": "x", "number": number})
    turns = 0

    async def count() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    counting = asyncio.create_task(count())
    got = [(await layer.receive(channel))["number"] for _ in range(2000)]
    counting.cancel()
    assert got == list(range(2000))
    assert turns >= 2000 // 50
