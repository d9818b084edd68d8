"""What tests of applications look into: the channels and groups of an in-memory layer."""

from __future__ import annotations

from collections.abc import Callable, Iterator, MutableMapping
from typing import TypeVar

V = TypeVar("V")


class ChannelView:
    """How many messages a channel holds; in the words of a queue."""

    def __init__(self, size: int) -> None:
        self._size = size

    def __len__(self) -> int:
        return self._size

    def qsize(self) -> int:
        return self._size

    def empty(self) -> bool:
        return self._size == 0


class LiveView(MutableMapping[str, V]):
    """A mapping that is read anew with each access.

    Args:
        delete: Called with a key that is there.
    """

    def __init__(self, read: Callable[[], dict[str, V]], delete: Callable[[str], None]) -> None:
        self._read = read
        self._delete = delete

    def __getitem__(self, key: str) -> V:
        return self._read()[key]

    def __setitem__(self, key: str, value: V) -> None:
        raise TypeError(
            f"The in-memory layer's {key!r} cannot be set here: call its send() or group_add()."
        )

    def __delitem__(self, key: str) -> None:
        if key not in self._read():
            raise KeyError(key)
        self._delete(key)

    def clear(self) -> None:
        # Not one by one until none is left: a channel that is being read stays.
        for key in self._read():
            self._delete(key)

    def __iter__(self) -> Iterator[str]:
        return iter(self._read())

    def __len__(self) -> int:
        return len(self._read())

    def __repr__(self) -> str:
        return repr(self._read())
