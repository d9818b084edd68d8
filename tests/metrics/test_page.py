"""The page about metrics names what there is."""

from __future__ import annotations

import re
from pathlib import Path

from channels.metrics.collector import families_of, server_families
from channels.metrics.statistics import NODE, PARTS
from channels.server.counts import ServerCounts
from tests.metrics.test_statistics import counted

PAGE = (Path(__file__).resolve().parents[2] / "docs/topics/metrics.md").read_text()
NAMED = {name.removesuffix("_total") for name in re.findall(r"channels_\w+", PAGE)}


def test_every_metric_of_servers_and_consumers_is_on_the_page() -> None:
    assert {family.name for family in families_of({})} - {"channels_layer_info"} <= NAMED
    server = {name for name in NAMED if name.startswith("channels_server_")}
    assert server == {family.name for family in server_families(ServerCounts())}


def test_what_is_said_of_layers_exists() -> None:
    layers = {f"channels_layer_{metric.name}" for metric in NODE.values()}
    layers |= {"channels_layer_dropped", "channels_layer_refused"}
    layers |= {family.name for family in families_of({})}
    assert {name for name in NAMED if name.startswith("channels_layer_")} <= layers


def test_every_reason_exists() -> None:
    rows = PAGE.partition("{reason=...}` | |")[2].partition("Some backends")[0]
    source = (Path(__file__).resolve().parents[2] / "src/channels/fanout/hub.py").read_text()
    known = {name.removeprefix("dropped_") for name in counted()}
    known |= set(re.findall(r'"dropped_(\w+)"', source))
    for table in (NODE, PARTS):
        known |= {reason for metric in table.values() for reason in metric.labels.values()}
    assert set(re.findall(r"^\| `(\w+)` \|", rows, re.M)) <= known
