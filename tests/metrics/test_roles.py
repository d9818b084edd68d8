"""What edges, interface servers and workers count has a name for Prometheus, and is documented."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from channels.decoupled.edge import Edge
from channels.decoupled.worker import ConnectionWorker
from channels.exceptions import InvalidOption
from channels.layers import InMemoryChannelLayer
from channels.metrics.collector import ChannelsCollector, role_families
from channels.metrics.roles import ROLES, find_role_metric
from channels.metrics_port import MetricsPort
from channels.status import answering
from channels.worker import Worker

ROOT = Path(__file__).resolve().parents[2]
SRC = ROOT / "src" / "channels"
SOURCES = [
    *sorted((SRC / "decoupled").glob("*.py")),
    *sorted((SRC / "legacy" / "interface").glob("*.py")),
    SRC / "legacy" / "handling.py",
    SRC / "worker.py",
]
COUNTED = re.compile(r'(?:count(?:er)?s\["|\w\.drop\("|_count\("|total\["|found\[")(\w+)"')
#: Statistics whose rest is a label.
LABELLED = {"dropped_malformed": "dropped", "full.http.request": "full", "http.request": "queued"}


def counted() -> Iterator[str]:
    """Every name under which the source counts something; of `handling`, drops have reasons."""
    for path in SOURCES:
        for name in COUNTED.findall(path.read_text()):
            if not (path.name == "handling.py" and name in {"malformed", "unrouted", "retries"}):
                yield name


@pytest.mark.parametrize("name", sorted({*counted()} - {"full", "http", "websocket"}))
def test_what_is_counted_has_its_row(name: str) -> None:
    assert name in ROLES, f"add a row for {name!r} to channels/metrics/roles.py"


@pytest.mark.parametrize("name", sorted(ROLES))
def test_what_has_a_row_is_counted(name: str) -> None:
    assert any(f'"{name}"' in path.read_text() for path in SOURCES)


async def test_nothing_that_a_role_tells_is_without_a_row() -> None:
    layer = InMemoryChannelLayer()
    edge = Edge(layer)
    await edge.start()
    worker = Worker(object(), ["jobs"], layer)
    told = {*edge.statistics(), *worker.statistics()}
    told |= {*ConnectionWorker(object, layer).statistics()}
    await edge.stop()
    assert len(told) > 8
    assert told <= ROLES.keys()


@pytest.mark.parametrize(("statistic", "name"), LABELLED.items())
def test_names_with_a_part_that_varies_have_a_label(statistic: str, name: str) -> None:
    metric = find_role_metric(statistic)
    assert metric.name == name
    assert [*metric.labels.values()] == [statistic.removeprefix("dropped_").removeprefix("full.")]


async def test_a_process_shows_what_it_is_while_it_is_that() -> None:
    layer = InMemoryChannelLayer()

    def shown() -> dict[str, float]:
        samples = [each for family in ChannelsCollector().collect() for each in family.samples]
        return {each.name: each.value for each in samples if each.name.startswith("channels_edge")}

    async with answering(layer, "edge", lambda: {"connections": 3, "offers": 7}):
        assert shown() == {"channels_edge_connections": 3, "channels_edge_offers_total": 7}
    assert shown() == {}


def test_two_workers_of_a_process_are_summed() -> None:
    (family,) = role_families([("worker", lambda: {"taken": 3}), ("worker", lambda: {"taken": 4})])
    assert (family.name, family.samples) == ("channels_worker_taken", {(): [7]})


def test_the_page_names_each_and_no_other() -> None:
    page = (ROOT / "docs" / "topics" / "metrics.md").read_text()
    section = page.partition("## Edges and workers")[2].partition("\n## ")[0]
    cells = " ".join(re.findall(r"^\| (`.*?`) \|", section, re.MULTILINE))
    named = set(re.findall(r"`(\w+)", cells))
    assert named == {metric.name for metric in ROLES.values()} | {"dropped", "full", "queued"}


@pytest.mark.parametrize("given", ["host", "host:0", "host:x", "127.0.0.1:65536"])
def test_an_address_without_a_port_is_refused(given: str) -> None:
    with pytest.raises(InvalidOption, match="expected HOST:PORT or PORT"):
        MetricsPort(metrics=given)


@pytest.mark.parametrize(
    ("given", "address"),
    [
        ("9100", ("127.0.0.1", 9100)),
        ("0.0.0.0:9100", ("0.0.0.0", 9100)),
        ("[::1]:9100", ("::1", 9100)),
        (None, ("", 0)),
    ],
)
def test_an_address(given: str | None, address: tuple[str, int]) -> None:
    assert MetricsPort(metrics=given).address() == address
