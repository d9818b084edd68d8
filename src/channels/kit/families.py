"""Families of metrics as plain data: of one process, or the sum of several."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

#: `info` is a gauge of 1 that only says that its labels exist.
Kind: TypeAlias = Literal["counter", "gauge", "histogram", "info", "unknown"]

#: What is kept of a process that has ended: the other kinds describe a state.
LASTING_KINDS: frozenset[Kind] = frozenset({"counter", "histogram"})


@dataclass(slots=True)
class Family:
    """One metric with all its samples.

    Attributes:
        samples: By the values of the labels: one number; of a histogram the count of each bucket,
            not cumulative, the count beyond the last one, and the sum of what was observed.
    """

    name: str
    kind: Kind
    help: str
    labels: tuple[str, ...] = ()
    samples: dict[tuple[str, ...], list[float]] = field(default_factory=dict)

    def add(self, labels: tuple[str, ...], values: list[float]) -> None:
        """Add to the sample with these values of the labels."""
        present = self.samples.get(labels)
        if present is None or len(present) != len(values):
            self.samples[labels] = list(values)
        elif self.kind != "info":
            self.samples[labels] = [one + other for one, other in zip(present, values, strict=True)]

    def as_data(self) -> list[Any]:
        """The family in the types of JSON."""
        samples = [[labels, values] for labels, values in self.samples.items()]
        return [self.name, self.kind, self.help, self.labels, samples]

    @classmethod
    def from_data(cls, data: list[Any]) -> Family:
        """The inverse of `as_data`."""
        name, kind, text, labels, samples = data
        found = {tuple(values): list(numbers) for values, numbers in samples}
        return cls(name, kind, text, tuple(labels), found)


def summed(families: Iterable[Family]) -> list[Family]:
    """One family for each name, in the order of their first; the arguments stay as they are."""
    found: dict[tuple[str, Kind, tuple[str, ...]], Family] = {}
    for family in families:
        key = family.name, family.kind, family.labels
        total = found.setdefault(key, Family(family.name, family.kind, family.help, family.labels))
        for labels, values in family.samples.items():
            total.add(labels, values)
    return list(found.values())
