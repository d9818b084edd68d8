"""The statistics of a layer, and what Prometheus calls them.

A layer's `statistics()` is a flat table of whole numbers.  What is a count here is a counter, what
is a size is a gauge; a name that no row has is handed on without a type.  Prefixes say which part
of the layer counts: none the node, `transport_` what it has of its backend, `transport_hub_` the
local layer's hub, which is one for all processes and told by the one that it runs in.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from channels.kit.families import Kind

TRANSPORT: Final = "transport_"
HUB: Final = "transport_hub_"


@dataclass(frozen=True, slots=True)
class Metric:
    """A metric of a layer; the label `layer` has the alias.

    Attributes:
        labels: Further labels, with their values.
    """

    name: str
    kind: Kind
    help: str
    labels: dict[str, str] = field(default_factory=dict)


DROPPED_HELP: Final = "Messages that were dropped, by reason; one that left out many counts each."
REFUSED_HELP: Final = "Messages and memberships that were refused, which their sender was told."


def _counter(name: str, text: str) -> Metric:
    return Metric(name, "counter", text)


def _gauge(name: str, text: str) -> Metric:
    return Metric(name, "gauge", text)


def dropped(reason: str) -> Metric:
    return Metric("dropped", "counter", DROPPED_HELP, {"reason": reason})


def refused(reason: str) -> Metric:
    return Metric("refused", "counter", REFUSED_HELP, {"reason": reason})


#: The node's statistics.
NODE: Final[dict[str, Metric]] = {
    "sent": _counter("sent", "Calls of send."),
    "group_sent": _counter("group_sent", "Calls of group_send."),
    "received": _counter("received", "Messages that came from the backend."),
    "delivered": _counter("delivered", "Messages put into a mailbox, once for each member."),
    "delivered_as_frames": _counter(
        "delivered_as_frames", "Messages written straight to a socket, once for each member."
    ),
    "dropped_repeated": _counter(
        "repeated", "Messages that came twice, of which the second was dropped."
    ),
    "dropped_full_queue": dropped("full"),
    "expired": dropped("expired"),
    "connected": _gauge("connected", "Processes that have the backend in reach."),
    "disconnected": _counter("disconnected", "Times that the backend went out of reach."),
    "gaps": _counter("gaps", "Times that messages to this process may have been lost."),
    "replayed": _counter("replayed", "Operations that were sent again after a broken connection."),
    "given_up": _counter("given_up", "Operations that failed after send_timeout."),
    "waiting_to_send": _gauge("waiting_to_send", "Operations that wait for the backend."),
    "joined_late": _counter("joined_late", "Memberships that wait for the backend."),
    "unanswered": _counter("unanswered", "Memberships of other processes that these left open."),
    "waiting": _gauge("waiting", "Messages that wait in the mailboxes of consumers."),
    "local_channels": _gauge("channels", "Channels of this process."),
    "local_groups": _gauge("groups", "Groups with members in this process."),
    "inboxes": _gauge("inboxes", "Channels of this process that receive() reads, or nobody."),
    "delayed_here": _gauge("delayed", "Delayed messages that this process holds."),
    "leased": _counter("leased", "Messages taken on lease."),
    "acknowledged": _counter("leases_acknowledged", "Leases that were acknowledged."),
    "retried": _counter("leases_retried", "Leases given back after a failure."),
    "rejected": _counter("leases_rejected", "Leases ended for good after a failure."),
    "given_back": _counter("leases_given_back", "Leases given back untried."),
    "leases_lost": _counter("leases_lost", "Leases that had run out when they were ended."),
    "dead_letters": _counter("dead_letters", "Messages that went to a dead-letter channel."),
    "dead_letters_put_off": _counter(
        "dead_letters_put_off", "Dead letters that must wait, because their channel is full."
    ),
}

#: The same for statistics of transports, and of the hub.
PARTS: Final[dict[str, Metric]] = {
    "expired": dropped("expired"),
    "inboxes_full": dropped("full_inbox"),
    "group_sends_with_full_inbox": dropped("full_inbox"),
    "refused": refused("backend"),
    "disconnected": _counter("connections_lost", "Connections to the backend that broke."),
    "lost": _counter("connections_lost", "Connections to the backend that broke."),
    "closed_rudely": _counter("closed_rudely", "Ends in which the backend was not told in time."),
    "inbox_overflows": _counter("inbox_overflows", "Times that this process's inbox was full."),
    "gaps": _counter("connection_gaps", "Connections after which messages may be missing."),
    "hosted": _counter("hub_hosted", "Times that this process became the hub."),
    "turned_away": _counter("hub_turned_away", "Processes that the hub has turned away."),
    "given_back": _counter("given_back", "Messages taken from a queue and put back unread."),
    "put_back_late": _counter(
        "put_back_late", "Messages whose reader had gone and that come again only after a while."
    ),
    "leases_run_out": _counter("leases_run_out", "Leases that ran out."),
    "leases_broken": _counter("leases_broken", "Leases that ended with their connection."),
    "returns_to_full_queue": _counter(
        "returns_to_full_queue", "Times that a message waited here to go back to a full queue."
    ),
    "handed_over": _counter("hub_handed_over", "Times that a hub ended in order."),
    "read": _counter("read", "Rows of the log that were read."),
    "cleaned": _counter("cleaned", "Rows that were past their time and deleted."),
    "batches": _counter("batches", "Batches of operations that were carried out."),
    "recovered": _counter("recovered", "Batches found carried out after a broken connection."),
    "pending": _gauge("pending", "Operations on their way to the backend."),
    "peers": _gauge("peers", "Processes at the hub."),
    "queues": _gauge("queues", "Queues that hold messages or have readers."),
    "queued": _gauge("queued", "Messages in queues."),
    "queued_octets": _gauge("queued_bytes", "Bytes in queues."),
    "delayed": _gauge("delayed", "Delayed messages that are held."),
    "leased": _gauge("on_lease", "Messages that are on lease."),
}


def find_metric(statistic: str) -> Metric:
    """The metric of a statistic.

    A count of drops or refusals needs no row: the rest of its name is the reason.
    """
    for prefix, table in ((HUB, PARTS), (TRANSPORT, PARTS), ("", NODE)):
        if statistic.startswith(prefix):
            return _find(statistic.removeprefix(prefix), table, prefix)
    raise AssertionError("every name starts with the empty prefix")


def _find(name: str, table: dict[str, Metric], prefix: str) -> Metric:
    found = table.get(name)
    if found is None:
        kind, _, reason = name.partition("_")
        if reason and kind == "dropped":
            # The hub drops repeats as the node does.
            return NODE.get(name) or dropped(reason)
        if reason and kind == "refused":
            return refused(reason)
        return Metric(prefix + name, "unknown", "Counted by the layer under this name.")
    is_shared = found.name in {"dropped", "refused"} or found.name.startswith("hub_")
    if prefix and not is_shared:
        part = "hub" if prefix == HUB else "backend"
        return Metric(f"{part}_{found.name}", found.kind, found.help, found.labels)
    return found
