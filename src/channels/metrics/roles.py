"""What edges, interface servers and workers count, and what Prometheus calls it.

The statistics are those that `channels status` shows.  A row is for all roles that count it: its
metric is called `channels_<role>_<name>`.
"""

from __future__ import annotations

from typing import Final

from channels.metrics.statistics import Metric


def _counter(name: str, text: str) -> Metric:
    return Metric(name, "counter", text)


def _gauge(name: str, text: str) -> Metric:
    return Metric(name, "gauge", text)


ROLES: Final[dict[str, Metric]] = {
    # Edge and connection worker.
    "connections": _gauge("connections", "Connections that are open."),
    "departed": _gauge("departed", "Connections whose socket has gone and whose worker has not."),
    "workers": _gauge("workers", "Workers that this edge talks to."),
    "edges": _gauge("edges", "Edges that this worker talks to."),
    "sockets": _gauge("sockets", "Those of them that are reached over a Unix socket."),
    "offered": _gauge("offered", "Connections that wait for a worker."),
    "claims_open": _gauge("claims_open", "Claims that no edge has answered."),
    "unacknowledged": _gauge("unacknowledged", "Clients' events that no worker has acknowledged."),
    "opened": _counter("opened", "Connections that were opened."),
    "offers": _counter("offers", "Offers of connections to workers."),
    "offers_repeated": _counter("offers_repeated", "Offers that no worker had answered."),
    "offers_full": _counter("offers_full", "Offers that found their queue full."),
    "offers_expired": _counter("offers_expired", "Connections that no worker took in time."),
    "claims": _counter("claims", "Connections that workers have claimed."),
    "claims_void": _counter("claims_void", "Claims that came too late, or twice."),
    "refused": _counter("refused", "Connections refused with 503: no worker had them."),
    "handed_over": _counter("handed_over", "Connections that workers have handed over."),
    "taken_over": _counter("taken_over", "Connections that went on after their worker's death."),
    "lost_with_worker": _counter("lost_with_worker", "Connections whose worker has died."),
    "lost_with_edge": _counter("lost_with_edge", "Connections whose edge has died."),
    "missing_at_worker": _counter("missing_at_worker", "Connections that a worker had no more."),
    "orphans": _counter("orphans", "Connections at a worker that no edge had."),
    "departed_forgotten": _counter("departed_forgotten", "Departed connections over the bound."),
    "passed_on": _counter("passed_on", "Connections given back: the worker was stopping."),
    "fenced": _counter("fenced", "Messages of former owners, or for connections that had gone."),
    "events_dropped": _counter("events_dropped", "Clients' events lost with their worker."),
    "sends_after_end": _counter("sends_after_end", "Sends to connections that were closed."),
    "credit_exceeded": _counter("credit_exceeded", "Connections whose worker sent too much."),
    "socket_overflows": _counter(
        "socket_overflows", "Sockets closed with 1013: their groups' messages were too many."
    ),
    "socket_messages_dropped": _counter(
        "socket_messages_dropped", "Messages of the sockets' own groups that could not be sent."
    ),
    # Between edge and worker.
    "malformed": _counter("malformed", "Messages that could not be read."),
    "failed": _counter("failed", "Messages that could not be handled."),
    "peers_lost": _counter("peers_lost", "Edges or workers that died or were silent."),
    "peers_refused": _counter("peers_refused", "Edges or workers over max_peers."),
    "sockets_refused": _counter("sockets_refused", "Unix sockets that could not be used."),
    "batches_repeated": _counter("batches_repeated", "Batches sent again through the layer."),
    "batches_doubled": _counter("batches_doubled", "Batches that came twice, dropped."),
    "gaps": _counter("batch_gaps", "Batches that came before one that was missing."),
    "sends_retried": _counter("sends_retried", "Batches that the layer did not take at once."),
    "sends_failed": _counter("sends_failed", "Batches that the layer refused."),
    # Workers of named channels, today's and of Channels 1.
    "busy": _gauge("busy", "Handlers that run."),
    "taken": _counter("taken", "Messages taken from channels."),
    "handled": _counter("handled", "Messages that a consumer of Channels 1 has handled."),
    "put_back": _counter("put_back", "Messages put back by ConsumeLater."),
    # The interface server of Channels 1.
    "cut": _counter("cut", "Responses cut off: their client read too slowly."),
    "late": _counter("late", "Replies to WebSockets that were closed."),
    "too_large": _counter("too_large", "Messages of clients that the layer does not carry."),
    "pushes_ignored": _counter("pushes_ignored", "HTTP/2 pushes that were left out."),
}

#: Beginning of a statistic whose rest is a label's value -> label, metric.
_LABELLED: Final = {
    "dropped_": ("reason", "dropped", "Messages that were dropped, by reason."),
    "full.": ("queue", "full", "Messages given up because their queue was full."),
    "malformed.": ("protocol", "malformed", "Replies that could not be read."),
}


def find_role_metric(statistic: str) -> Metric:
    """The metric of a statistic; the name of a queue counts what was put into it."""
    found = ROLES.get(statistic)
    if found is not None:
        return found
    for beginning, (label, name, text) in _LABELLED.items():
        if statistic.startswith(beginning):
            return Metric(name, "counter", text, {label: statistic.removeprefix(beginning)})
    return Metric("queued", "counter", "Messages put into queues.", {"queue": statistic})
