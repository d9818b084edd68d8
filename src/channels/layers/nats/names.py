"""What things are called in NATS.

    <prefix>.g.<group>             a group
    <prefix>.n.<node>              inbox of a process
    <prefix>.q.<capacity>.<name>   a channel that no process owns
    <prefix>_Q_<capacity>          the stream of these

Full stops divide subjects, so names have "=d" for them, "=x" for "!" and "=q" for "?".
"""

from __future__ import annotations

from typing import Final

_ENCODED: Final = str.maketrans({".": "=d", "!": "=x", "?": "=q"})


def encode(name: str) -> str:
    """A name as one word of a subject."""
    return name.translate(_ENCODED)


class Names:
    """Of one layer."""

    def __init__(self, prefix: str) -> None:
        self.prefix = prefix

    def group(self, group: str) -> str:
        return f"{self.prefix}.g.{encode(group)}"

    def node(self, node: str) -> str:
        return f"{self.prefix}.n.{node}"

    def queue(self, channel: str, capacity: int) -> str:
        return f"{self.prefix}.q.{capacity}.{encode(channel)}"

    def stream(self, capacity: int) -> str:
        return f"{self.prefix}_Q_{capacity}"

    def stream_subjects(self, capacity: int) -> str:
        return f"{self.prefix}.q.{capacity}.>"
