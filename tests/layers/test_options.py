"""What CONFIG may hold, and what is said of the rest."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest

from channels.exceptions import InvalidChannelLayerError
from channels.kit.options import option
from channels.layers.options import LayerOptions, split_options


@dataclass(frozen=True, slots=True)
class Own:
    """The options of a layer."""

    depth: int = option(5, unit="metres", minimum=1, help="how deep")


class Base:
    def __init__(self, place: str = "", **config: Any) -> None: ...


class Layer(Base):
    def __init__(self, *args: Any, colour: str = "", **config: Any) -> None:
        super().__init__(**config)


def test_each_gets_its_own() -> None:
    own, rest = split_options(Own, {"depth": 7, "capacity": 3}, layer=Layer)
    assert (own, rest) == (Own(depth=7), LayerOptions(capacity=3))


def test_an_unknown_key_is_told_with_all_that_are_known() -> None:
    with pytest.raises(
        InvalidChannelLayerError,
        match=r"^Layer does not know hosts, size\. Its own options are colour, depth, place; those "
        r"of every layer are capacity, ",
    ):
        split_options(Own, {"size": 1, "hosts": [], "depth": 2}, layer=Layer)
