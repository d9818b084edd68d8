"""What is done with a datagram, in a worker."""

from typing import Any

from channels.consumer import AsyncConsumer


class SensorConsumer(AsyncConsumer):
    """Takes "<name> <number>" and answers with what it has understood."""

    async def udp_receive(self, message: dict[str, Any]) -> None:
        await self.channel_layer.send(
            message["reply_channel"],
            {
                "type": "udp.send",
                "client": message["client"],
                "data": self.answer(message["data"]),
            },
        )

    def answer(self, data: bytes) -> bytes:
        name, _, number = data.decode(errors="replace").strip().partition(" ")
        try:
            value = float(number)
        except ValueError:
            return b"expected: <name> <number>\n"
        return f"{name} is {value:g}\n".encode()
