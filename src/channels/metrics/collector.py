"""Reads the counts of this process, or of all workers, whenever it is scraped."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import accumulate
from typing import Any, Final

from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
    UnknownMetricFamily,
)
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString

from channels.consumer.times import delivery_times, handler_times
from channels.kit.families import Family, Kind
from channels.kit.histograms import BOUNDS, measuring
from channels.kit.threads import waiting_jobs
from channels.layers.registry import channel_layers
from channels.metrics.roles import find_role_metric
from channels.metrics.statistics import Metric as NamedMetric
from channels.metrics.statistics import find_metric
from channels.server.counts import ServerCounts, counts
from channels.server.loop_lag import lags
from channels.status import Numbers, roles
from channels.supervisor.shared_counts import shared_counts

logger: Final = logging.getLogger("channels.metrics")

_FAMILIES: Final[dict[Kind, Callable[..., Any]]] = {
    "counter": CounterMetricFamily,
    "gauge": GaugeMetricFamily,
    "info": GaugeMetricFamily,
    "unknown": UnknownMetricFamily,
}
_UNFIT: Final = re.compile(r"\W", re.ASCII)
_LAYER: Final = "channels_layer"
_SERVER: Final = "channels_server"
_BOUND_TEXTS: Final = [*map(floatToGoString, BOUNDS), "+Inf"]

Layers = Callable[[], Mapping[str, Any]]


def _used_layers() -> Mapping[str, Any]:
    return dict(channel_layers.backends)


class ChannelsCollector(Collector):
    """The layers that this process has used, by alias, its servers and its consumers.

    In a worker of `channels serve --workers`: the sum of all workers.  Times are measured in a
    process from the moment that it makes its first collector.

    Register it in a registry of your own, or in prometheus_client's common one:
    `REGISTRY.register(ChannelsCollector())`.

    Args:
        layers: Others than the configured ones; then the other workers take no part.
    """

    def __init__(self, layers: Layers = _used_layers) -> None:
        self._layers = layers
        begin()

    def describe(self) -> Iterable[Metric]:
        """Nothing: what there is shows when it is collected, and registering asks nobody."""
        return ()

    def collect(self) -> Iterable[Metric]:
        """The metrics of now."""
        if self._layers is _used_layers:
            families: Iterable[Family] = shared_counts.total(own_families)
        else:
            families = families_of(self._layers())
        return map(_shown, families)


def begin() -> None:
    """Measure times from now on, and write this worker's metrics for the others."""
    shared_counts.source = own_families
    measuring.begin()


def own_families() -> Iterable[Family]:
    """The metrics of this process alone."""
    return families_of(_used_layers())


def families_of(layers: Mapping[str, Any]) -> Iterable[Family]:
    """The metrics of some layers, and of this process's servers and consumers."""
    yield from layer_families(layers)
    yield from server_families(counts)
    yield from role_families(roles)
    yield lags.family()
    yield handler_times.family()
    yield delivery_times.family()
    yield _of_one(
        "channels_sync_jobs_waiting",
        "gauge",
        "Sync handlers that wait for a thread.",
        waiting_jobs(),
    )


def _shown(family: Family) -> Metric:
    """A family in prometheus_client's form."""
    if family.kind == "histogram":
        histogram = HistogramMetricFamily(family.name, family.help, labels=family.labels)
        for values, numbers in family.samples.items():
            buckets = zip(_BOUND_TEXTS, accumulate(numbers[:-1]), strict=True)
            histogram.add_metric(values, list(buckets), numbers[-1])
        return histogram
    shown: Metric = _FAMILIES[family.kind](family.name, family.help, labels=family.labels)
    for values, numbers in family.samples.items():
        shown.add_metric(values, numbers[0])  # type: ignore[attr-defined]
    return shown


def layer_families(layers: Mapping[str, Any]) -> Iterable[Family]:
    """The metrics of some layers, by alias."""
    about = Family(f"{_LAYER}_info", "info", "The layers in use, each 1.", ("layer", "backend"))
    named = []
    for alias, layer in layers.items():
        about.add((alias, f"{type(layer).__module__}.{type(layer).__qualname__}"), [1])
        for statistic, value in _statistics(alias, layer).items():
            named.append((_LAYER, find_metric(statistic), {"layer": alias}, value))
    yield about
    yield from _named_families(named)


def role_families(found: Sequence[tuple[str, Callable[[], Numbers]]]) -> Iterable[Family]:
    """The metrics of this process as an edge, an interface server or a worker."""
    return _named_families(
        (f"channels_{role}", find_role_metric(statistic), {}, value)
        for role, numbers in list(found)
        for statistic, value in numbers().items()
    )


def _named_families(
    named: Iterable[tuple[str, NamedMetric, dict[str, str], float]],
) -> Iterable[Family]:
    """One family for each name.

    Args:
        named: Beginning of a name, metric, labels before its own, value.
    """
    found: dict[tuple[str, Kind, str, tuple[str, ...]], Family] = {}
    for beginning, metric, before, value in named:
        name = f"{beginning}_{_UNFIT.sub('_', metric.name)}"
        labels = before | metric.labels
        key = (name, metric.kind, metric.help, tuple(labels))
        # Added: two parts of a layer may drop for the same reason.
        found.setdefault(key, Family(*key)).add(tuple(labels.values()), [value])
    for _, family in sorted(found.items()):
        yield family


def _statistics(alias: str, layer: Any) -> dict[str, float]:
    """What a layer counts; nothing if it has no statistics or they fail, which is logged."""
    try:
        found = dict(layer.statistics()) if hasattr(layer, "statistics") else {}
    except Exception:
        logger.exception("The statistics of the channel layer %r cannot be read", alias)
        return {}
    return {
        str(name): value
        for name, value in found.items()
        if isinstance(value, (int, float)) and not isinstance(value, bool)
    }


def server_families(found: ServerCounts) -> Iterable[Family]:
    """The metrics of this process's servers."""
    opened, ended = found.connections_opened, found.connections_ended
    closed = dict(found.websockets_closed)
    yield _counter("connections", "Connections that were accepted.", opened)
    yield _gauge("open_connections", "Connections that are open.", opened - ended)
    yield _counter(
        "connections_refused",
        "Connections that were answered with 503: there were max_connections, or the server ended.",
        found.connections_refused,
    )
    yield _labelled("responses", "HTTP responses, by status.", "status", found.responses)
    yield _counter("websockets", "WebSockets that were accepted.", found.websockets_opened)
    yield _gauge(
        "open_websockets",
        "WebSockets that are open.",
        found.websockets_opened - sum(closed.values()),
    )
    yield _labelled(
        "websockets_refused",
        "WebSocket handshakes that were refused, by HTTP status.",
        "status",
        found.websockets_refused,
    )
    yield _labelled("websockets_closed", "WebSockets that are over, by close code.", "code", closed)
    yield _labelled(
        "connections_cut",
        "Connections that were cut off: their client did not read or gave no pong, or the server "
        "ended.",
        "reason",
        found.cut,
    )
    yield _labelled(
        "log_lines_dropped",
        "Log lines that were dropped, by output: it took none, and too many waited.",
        "output",
        found.log_lines_dropped,
    )
    yield _counter(
        "application_failures",
        "Applications that raised, or ended without an answer.",
        found.application_failures,
    )


def _counter(name: str, text: str, value: int) -> Family:
    return _of_one(f"{_SERVER}_{name}", "counter", text, value)


def _gauge(name: str, text: str, value: int) -> Family:
    return _of_one(f"{_SERVER}_{name}", "gauge", text, value)


def _of_one(name: str, kind: Kind, text: str, value: int) -> Family:
    return Family(name, kind, text, samples={(): [value]})


def _labelled(name: str, text: str, label: str, values: Mapping[str, int]) -> Family:
    # A copy: another thread may count something for the first time.
    samples: dict[tuple[str, ...], list[float]] = {
        (value,): [count] for value, count in dict(values).items()
    }
    return Family(f"{_SERVER}_{name}", "counter", text, (label,), samples)
