"""The page of CHANNEL_LAYERS has the keys that the layers take, and no others."""

from __future__ import annotations

import re

import pytest
from django.utils.module_loading import import_string

from channels.checks import LAYER_KEYS
from channels.exceptions import InvalidChannelLayerError
from channels.layers import aliases
from channels.layers.options import LayerOptions
from tests.docs.sources import ROW, sections
from tests.docs.tutorial import ROOT

PAGE = ROOT / "docs/reference/settings.md"
SECTIONS = sections(PAGE)
LAYERS = [title for title in SECTIONS if title.endswith("ChannelLayer")]
#: What the error for an unknown key says.
KNOWN = re.compile(r"own options are (?P<own>.*); those of every layer are (?P<general>.*)\.$")


def keys(section: str) -> set[str]:
    return set(ROW.findall(SECTIONS[section]))


def test_an_entry_has_the_keys_that_the_check_knows() -> None:
    head = PAGE.read_text().partition("\n## ")[0]
    assert set(ROW.findall(head)) == LAYER_KEYS


def test_every_layer_takes_the_common_keys() -> None:
    assert keys("Every layer") == set(LayerOptions.__dataclass_fields__)


def test_the_page_has_every_layer_that_settings_can_name() -> None:
    import channels.layers as named

    assert set(LAYERS) == set(named._BACKENDS)


@pytest.mark.parametrize("layer", [name for name in LAYERS if name != "InMemoryChannelLayer"])
def test_a_layer_takes_the_keys_that_the_page_gives_it(layer: str) -> None:
    with pytest.raises(InvalidChannelLayerError) as caught:
        import_string(f"channels.layers.{layer}")(no_such_key=1)
    known = KNOWN.search(str(caught.value))
    assert known, caught.value
    assert keys(layer) == set(known["own"].split(", "))
    assert keys("Every layer") == set(known["general"].split(", "))


def test_the_page_has_every_other_name_of_a_layer() -> None:
    assert keys("Other names") == set(aliases.BACKENDS)
