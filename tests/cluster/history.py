"""Judges what publishers wrote and readers read: lost, doubled, out of order, from nowhere.

A publisher numbers its messages from 0 and notes how each send ended.  A reader notes the
(publisher, number) pairs that it got, in order.  The judgement is a pure function of these logs.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum

#: A publisher's name and the number of its message.
Mark = tuple[str, int]


class Outcome(Enum):
    """How a send ended."""

    #: It returned: the message must arrive.
    OK = "ok"
    #: It was refused: the message must not arrive.
    REFUSED = "refused"
    #: It raised after it may have been carried out: the message may arrive.
    UNKNOWN = "unknown"


class PublisherLog:
    """What one publisher sent."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.outcomes: list[Outcome | None] = []

    def begin(self) -> Mark:
        """The mark of the next message; until `end` its outcome is unknown."""
        self.outcomes.append(None)
        return self.name, len(self.outcomes) - 1

    def end(self, mark: Mark, outcome: Outcome = Outcome.OK) -> None:
        self.outcomes[mark[1]] = outcome

    def marks(self, *outcomes: Outcome) -> set[Mark]:
        """The messages that ended so."""
        return {
            (self.name, number)
            for number, outcome in enumerate(self.outcomes)
            if (outcome or Outcome.UNKNOWN) in outcomes
        }


@dataclass
class Verdict:
    """What went wrong; every list is empty if nothing did.

    Attributes:
        lost: (reader, mark): sent successfully and not read.  For queues the reader is "".
        doubled: (reader, mark): read more than once; for queues by all readers together.
        reordered: (reader, earlier, later): read in this order although sent in the other.
        strange: (reader, mark): refused, or never sent, and read nevertheless.
    """

    sent: int = 0
    read: int = 0
    lost: list[tuple[str, Mark]] = field(default_factory=list)
    doubled: list[tuple[str, Mark]] = field(default_factory=list)
    reordered: list[tuple[str, Mark, Mark]] = field(default_factory=list)
    strange: list[tuple[str, Mark]] = field(default_factory=list)

    @property
    def is_clean(self) -> bool:
        return not (self.lost or self.doubled or self.reordered or self.strange)

    def __str__(self) -> str:
        parts = [f"{self.sent} sent, {self.read} read"]
        for name in ("lost", "doubled", "reordered", "strange"):
            found = getattr(self, name)
            parts.append(f"{len(found)} {name}" + (f", first {found[0]}" if found else ""))
        return "; ".join(parts)


def judge_group(
    publishers: Iterable[PublisherLog], readers: Mapping[str, Sequence[Mark]]
) -> Verdict:
    """Every reader must have every message once, each publisher's in order."""
    logs = list(publishers)
    verdict = Verdict(sent=sum(len(log.outcomes) for log in logs))
    for name, marks in readers.items():
        _judge_reading(verdict, logs, name, marks)
        got = set(marks)
        verdict.lost += [(name, mark) for mark in sorted(_expected(logs) - got)]
        _judge_order(verdict, name, marks)
    return verdict


def judge_queue(
    publishers: Iterable[PublisherLog], readers: Mapping[str, Sequence[Mark]]
) -> Verdict:
    """Every message must have been read once, by one of the readers.

    What one reader got of a publisher must be in order.
    """
    logs = list(publishers)
    verdict = Verdict(sent=sum(len(log.outcomes) for log in logs))
    everything = [mark for marks in readers.values() for mark in marks]
    _judge_reading(verdict, logs, "", everything)
    verdict.lost += [("", mark) for mark in sorted(_expected(logs) - set(everything))]
    for name, marks in readers.items():
        _judge_order(verdict, name, marks)
    return verdict


def _expected(logs: Sequence[PublisherLog]) -> set[Mark]:
    return set().union(*(log.marks(Outcome.OK) for log in logs))


def _judge_reading(
    verdict: Verdict, logs: Sequence[PublisherLog], reader: str, marks: Sequence[Mark]
) -> None:
    possible = set().union(*(log.marks(Outcome.OK, Outcome.UNKNOWN) for log in logs))
    counts = Counter(marks)
    verdict.read += len(marks)
    verdict.doubled += [(reader, mark) for mark, count in counts.items() if count > 1]
    verdict.strange += [(reader, mark) for mark in counts if mark not in possible]


def _judge_order(verdict: Verdict, reader: str, marks: Sequence[Mark]) -> None:
    """Repeats are no disorder: they are counted as doubled."""
    last: dict[str, int] = {}
    for publisher, number in marks:
        before = last.get(publisher, -1)
        if number < before:
            verdict.reordered.append((reader, (publisher, before), (publisher, number)))
        else:
            last[publisher] = number
