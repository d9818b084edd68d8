"""What things are called in NATS.

    <prefix>.g.<group>                  a group
    <prefix>.n.<node>                   inbox of a process
    <prefix>.q.<kind>.<name>.0          a channel that no process owns, bounded by its capacity
    <prefix>.q.<kind>.<name>.<word>     one message for it beside that bound
    <prefix>.d.<identity>               a message that is delayed
    <prefix>.m.<group>.<channel>        that a channel no process owns is a member of a group
    <prefix>.a.<group>.<channel>        the same, told to all processes
    <prefix>.u.<what>.<identity>        a note on a message that was delivered more than once
    <prefix>.r.g.<group>, .r.n.<node>   with `reliable`: what is sent, and kept for a while
    <prefix>.l.g.<group>, .l.n.<node>   with `reliable`: the same, passed on

Streams are <prefix>_Q_<kind>, <prefix>_D, _M, _N (notes) and _R.  A kind is what the channels of
one stream have in common: their capacity, and how long their messages live.

Full stops divide subjects, so names have "=d" for them, "=x" for "!" and "=q" for "?".
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

_ENCODED: Final = str.maketrans({".": "=d", "!": "=x", "?": "=q"})
_DECODED: Final = {"=d": ".", "=x": "!", "=q": "?"}


def encode(name: str) -> str:
    """A name as one word of a subject."""
    return name.translate(_ENCODED)


def decode(word: str) -> str:
    """The name that a word of a subject stands for."""
    for code, sign in _DECODED.items():
        word = word.replace(code, sign)
    return word


@dataclass(frozen=True, slots=True)
class QueuePlan:
    """How a channel that no process owns is kept; the same in all processes of a layer.

    Attributes:
        life: Seconds for which its messages live; None: for ever.
        is_usual: They live as long as those of any channel, `expiry`.
        ack_wait: Seconds after which a message that was taken and not confirmed comes again.
    """

    capacity: int
    life: float | None
    is_usual: bool
    ack_wait: float

    @property
    def kind(self) -> str:
        if self.is_usual:
            return str(self.capacity)
        return f"{self.capacity}-{'kept' if self.life is None else round(self.life * 1000)}"


class Names:
    """Of one layer."""

    def __init__(self, prefix: str) -> None:
        self.prefix = prefix

    def group(self, group: str) -> str:
        return f"g.{encode(group)}"

    def node(self, node: str) -> str:
        return f"n.{node}"

    def plain(self, path: str) -> str:
        """Where a group or an inbox is, if NATS keeps nothing."""
        return f"{self.prefix}.{path}"

    def kept(self, path: str) -> str:
        """Where one is sent to, if NATS keeps it."""
        return f"{self.prefix}.r.{path}"

    def live(self, path: str) -> str:
        """Where one is heard, if NATS keeps it."""
        return f"{self.prefix}.l.{path}"

    def queue(self, plan: QueuePlan, channel: str, word: str = "0") -> str:
        return f"{self.prefix}.q.{plan.kind}.{encode(channel)}.{word}"

    def stream(self, plan: QueuePlan) -> str:
        return f"{self.prefix}_Q_{plan.kind}"

    def stream_subjects(self, plan: QueuePlan) -> str:
        return f"{self.prefix}.q.{plan.kind}.>"
