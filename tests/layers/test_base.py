"""Names, capacities and the abstract verbs, as third-party layers rely on them."""

import re

import pytest

from channels.kit.printable import printable
from channels.layers import BaseChannelLayer

GOOD_CHANNELS = ["a", "worker.thumbs-up_2", "A.b!", "specific.x!y", "x!ünï_1.-", "x!", "a" * 99]
BAD_CHANNELS = ["", "a b", "a!b!c", "ä", "a?b", "a/b", "a" * 100, "name\n", "x!y\n", "!x", "a\x00"]
GOOD_GROUPS = ["a", "room-1", "tgp_2.x", "..", "g" * 99]
BAD_GROUPS = ["", "a!", "a b", "ä", "room\n", "g" * 100, "a:b"]
NAME_ERROR = (
    " name must be a valid unicode string with length < 100 containing only ASCII alphanumerics,"
    " hyphens, underscores, or periods."
)


@pytest.fixture
def layer() -> BaseChannelLayer:
    return BaseChannelLayer()


@pytest.mark.parametrize("name", GOOD_CHANNELS)
def test_valid_channel_names(layer: BaseChannelLayer, name: str) -> None:
    assert layer.require_valid_channel_name(name)


@pytest.mark.parametrize("name", [*BAD_CHANNELS, None, 5, b"bytes"])
def test_invalid_channel_names(layer: BaseChannelLayer, name: str) -> None:
    with pytest.raises(TypeError) as caught:
        layer.require_valid_channel_name(name)
    assert str(caught.value) == f"Channel{NAME_ERROR} Found {printable(repr(name))}."


@pytest.mark.parametrize("name", GOOD_GROUPS)
def test_valid_group_names(layer: BaseChannelLayer, name: str) -> None:
    assert layer.require_valid_group_name(name)


@pytest.mark.parametrize("name", [*BAD_GROUPS, None, 5, b"bytes"])
def test_invalid_group_names(layer: BaseChannelLayer, name: str) -> None:
    with pytest.raises(TypeError) as caught:
        layer.require_valid_group_name(name)
    assert str(caught.value) == f"Group{NAME_ERROR} Found {printable(repr(name))}."


def test_names_to_receive_from_end_at_the_mark(layer: BaseChannelLayer) -> None:
    assert layer.require_valid_channel_name("specific.x!", receive=True)
    assert layer.require_valid_channel_name("plain", receive=True)
    with pytest.raises(TypeError, match=r"Specific channel names in receive\(\) must end at the !"):
        layer.require_valid_channel_name("specific.x!y", receive=True)


def test_lists_of_names(layer: BaseChannelLayer) -> None:
    assert layer.valid_channel_names(["a", "b!c"])
    with pytest.raises(TypeError):
        layer.valid_channel_names([])
    with pytest.raises(TypeError):
        layer.valid_channel_names("abc")  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="must end at the !"):
        layer.valid_channel_names(["a", "b!c"], receive=True)


def test_deprecated_names_warn_and_still_refuse(layer: BaseChannelLayer) -> None:
    with pytest.warns(DeprecationWarning, match="require_valid_channel_name"):
        assert layer.valid_channel_name("fine")
    with pytest.warns(DeprecationWarning, match="channel"), pytest.raises(TypeError):
        layer.valid_channel_name("not fine")
    with (
        pytest.warns(DeprecationWarning, match="channel"),
        pytest.raises(TypeError, match="must end at the !"),
    ):
        layer.valid_channel_name("specific.x!y", receive=True)
    with pytest.warns(DeprecationWarning, match="require_valid_group_name"):
        assert layer.valid_group_name("fine")
    with pytest.warns(DeprecationWarning, match="group"), pytest.raises(TypeError):
        layer.valid_group_name("not fine")


def test_non_local_name(layer: BaseChannelLayer) -> None:
    assert layer.non_local_name("specific.x!abc") == "specific.x!"
    assert layer.non_local_name("plain") == "plain"


def test_capacity_by_glob_and_by_pattern_first_match_wins() -> None:
    layer = BaseChannelLayer(
        capacity=7, channel_capacity={"http.*": 20, re.compile(r"^chat\.\d+$"): 3, "http.x": 1}
    )
    assert layer.get_capacity("http.x") == 20
    assert layer.get_capacity("chat.12") == 3
    assert layer.get_capacity("chat.x") == 7


def test_capacity_in_a_subclass_that_compiles_by_itself() -> None:
    class Layer(BaseChannelLayer):
        def __init__(self) -> None:
            super().__init__(channel_capacity={"a.*": 5})
            self.channel_capacity = self.compile_capacities({"b.*": 6})

    class LazyLayer(BaseChannelLayer):
        def __init__(self) -> None:
            super().__init__()
            self.channel_capacity = {"b.*": 6}

    for layer in (Layer(), LazyLayer()):
        assert layer.get_capacity("b.x") == 6
        assert layer.get_capacity("a.x") == 100
    again = layer.compile_capacities(layer.channel_capacity)
    assert again == layer.channel_capacity


@pytest.mark.parametrize(
    ("verb", "arguments"),
    [
        ("send", ("c", {})),
        ("receive", ("c",)),
        ("new_channel", ()),
        ("flush", ()),
        ("group_add", ("g", "c")),
        ("group_discard", ("g", "c")),
        ("group_send", ("g", {})),
    ],
)
async def test_verbs_are_abstract(
    layer: BaseChannelLayer, verb: str, arguments: tuple[object, ...]
) -> None:
    with pytest.raises(NotImplementedError, match=verb):
        await getattr(layer, verb)(*arguments)
