"""Every statistic of our layers has a name for Prometheus."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from channels.layers import InMemoryChannelLayer
from channels.metrics.statistics import NODE, PARTS, Metric, find_metric

SRC = Path(__file__).resolve().parents[2] / "src" / "channels"
COUNTED = re.compile(r'counters\["(\w+)"\] \+=|_end\(\s*"(\w+)"')


def counted() -> Iterator[str]:
    """Every name under which the layers' source counts something."""
    for wing in ("layers", "backends"):
        for path in sorted((SRC / wing).rglob("*.py")):
            for first, second in COUNTED.findall(path.read_text()):
                yield first or second


@pytest.mark.parametrize("name", sorted(set(counted())))
def test_what_the_layers_count_has_its_row(name: str) -> None:
    found = [find_metric(prefix + name).kind for prefix in ("", "transport_", "transport_hub_")]
    assert "counter" in found, f"add a row for {name!r} to channels/metrics/statistics.py"


def test_nothing_of_a_layer_is_without_a_type() -> None:
    names = InMemoryChannelLayer().statistics()
    assert len(names) > 10
    assert [name for name in names if find_metric(name).kind == "unknown"] == []


@pytest.mark.parametrize(
    ("statistic", "reason"),
    [
        ("dropped_full", "full"),
        ("dropped_full_queue", "full"),
        ("expired", "expired"),
        ("transport_hub_expired", "expired"),
        ("transport_dropped_log_full", "log_full"),
        ("transport_hub_dropped_peer_buffer", "peer_buffer"),
        ("transport_inboxes_full", "full_inbox"),
        ("dropped_of_tomorrow", "of_tomorrow"),
    ],
)
def test_drops_are_one_metric_with_their_reason(statistic: str, reason: str) -> None:
    metric = find_metric(statistic)
    assert (metric.name, metric.labels) == ("dropped", {"reason": reason})


def test_what_came_twice_is_no_loss() -> None:
    for name in ("dropped_repeated", "transport_hub_dropped_repeated"):
        assert find_metric(name).name.endswith("repeated")


def test_parts_are_told_apart() -> None:
    assert find_metric("disconnected").name == "disconnected"
    assert find_metric("transport_disconnected").name == "backend_connections_lost"
    assert find_metric("transport_hub_queued_octets").name == "hub_queued_bytes"


def test_a_strange_name_is_handed_on_as_it_is() -> None:
    metric = find_metric("transport_spins")
    assert (metric.name, metric.kind, metric.labels) == ("transport_spins", "unknown", {})


@pytest.mark.parametrize("table", [NODE, PARTS], ids=["node", "parts"])
def test_rows_of_one_name_are_of_one_kind_and_help(table: dict[str, Metric]) -> None:
    seen: dict[str, tuple[str, str]] = {}
    for metric in table.values():
        assert seen.setdefault(metric.name, (metric.kind, metric.help)) == (
            metric.kind,
            metric.help,
        )
