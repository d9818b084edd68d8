"""Reads the counts of this process whenever it is scraped; nothing is counted twice or kept."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    Metric,
    UnknownMetricFamily,
)
from prometheus_client.registry import Collector

from channels.layers.registry import channel_layers
from channels.metrics.statistics import Kind, find_metric
from channels.server.counts import ServerCounts, counts

logger: Final = logging.getLogger("channels.metrics")

_FAMILIES: Final[dict[Kind, Callable[..., Any]]] = {
    "counter": CounterMetricFamily,
    "gauge": GaugeMetricFamily,
    "unknown": UnknownMetricFamily,
}
_UNFIT: Final = re.compile(r"\W", re.ASCII)
_LAYER: Final = "channels_layer"
_SERVER: Final = "channels_server"

Layers = Callable[[], Mapping[str, Any]]


class ChannelsCollector(Collector):
    """The layers that this process has used, by alias, and its servers.

    Register it in a registry of your own, or in prometheus_client's common one:
    `REGISTRY.register(ChannelsCollector())`.
    """

    def __init__(self, layers: Layers = lambda: dict(channel_layers.backends)) -> None:
        self._layers = layers

    def describe(self) -> Iterable[Metric]:
        """Nothing: what there is shows when it is collected, and registering asks nobody."""
        return ()

    def collect(self) -> Iterable[Metric]:
        """The counts of now."""
        yield from layer_families(self._layers())
        yield from server_families(counts)


def layer_families(layers: Mapping[str, Any]) -> Iterable[Metric]:
    """The metrics of some layers, by alias."""
    about = GaugeMetricFamily(
        f"{_LAYER}_info", "The layers in use, each 1.", labels=["layer", "backend"]
    )
    sums: dict[tuple[str, Kind, str, tuple[str, ...]], dict[tuple[str, ...], float]] = {}
    for alias, layer in layers.items():
        about.add_metric([alias, f"{type(layer).__module__}.{type(layer).__qualname__}"], 1)
        for statistic, value in _statistics(alias, layer).items():
            metric = find_metric(statistic)
            name = f"{_LAYER}_{_UNFIT.sub('_', metric.name)}"
            family = sums.setdefault((name, metric.kind, metric.help, tuple(metric.labels)), {})
            labels = (alias, *metric.labels.values())
            # Two parts of a layer may drop for the same reason.
            family[labels] = family.get(labels, 0) + value
    yield about
    for (name, kind, text, labels), samples in sorted(sums.items()):
        family = _FAMILIES[kind](name, text, labels=["layer", *labels])
        for values, value in samples.items():
            family.add_metric(values, value)
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


def server_families(found: ServerCounts) -> Iterable[Metric]:
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


def _counter(name: str, text: str, value: int) -> Metric:
    return CounterMetricFamily(f"{_SERVER}_{name}", text, value=value)


def _gauge(name: str, text: str, value: int) -> Metric:
    return GaugeMetricFamily(f"{_SERVER}_{name}", text, value=value)


def _labelled(name: str, text: str, label: str, values: Mapping[str, int]) -> Metric:
    family = CounterMetricFamily(f"{_SERVER}_{name}", text, labels=[label])
    # A copy: another thread may count something for the first time.
    for value, count in dict(values).items():
        family.add_metric([value], count)
    return family
