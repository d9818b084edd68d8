"""Channel layers over RabbitMQ 3.10 and later, without a plugin.

Topology (`channels.backends.rabbitmq.names`)
    Each process has an inbox: a durable queue with a bound, which the broker deletes when nobody
    has read it for `window` seconds.  A group is a routing key of one direct exchange, to which the
    inboxes of the processes with members are bound; so a send to a group is one message to the
    broker and one to each of these processes.  Any other channel is a durable queue with its
    capacity as its bound; one that is delivered at least once has a second, for what comes back.
    Delayed messages wait in queues of their own (`delays`), and what a full queue in a group
    refuses goes to a queue to be counted (`overflow`).  Each process has one connection, and a
    second one to move delayed messages on (`delay_connection`).

What is guaranteed
    * While a connection is away the inbox keeps what comes.  On reconnect the sender sends again
      what was not confirmed, and what arrives twice is dropped: nothing lost, doubled or reordered
      for `window` seconds and `node_capacity` messages.
    * A queue's message goes to one process, once, also when connections break: receipts tell a
      sender what has been carried out (`publisher`), and a reader takes a message in a transaction
      (`readers`).  Only a cut between a message and its receipt, which leave in one write, doubles
      it.  What a process has taken dies with it: at most once.
    * At least once (`leases`): what a process has in hand is another's as soon as its connection
      goes, so it is handled twice if the process lives on.  Nothing is lost while the broker lives.
    * A delayed message is not lost, and what a process that hangs has in hand is another's within
      five seconds.  It comes twice if the connection of the process that puts it into its channel
      breaks at that moment, or if that process hangs then.  It waits on while its channel is full;
      if that is delivered at least once it goes before what lies there.  `max_delayed` is exact for
      one sender at a time; messages with less than a second to go are not counted.
    * The broker's restart loses what lay in it unread, unless `persistent` for queues; groups are
      kept by the broker, and each process tells its listeners of a gap.
    * In a cluster a queue is on one node.  If that goes down its messages wait there, and so do
      sends to it; an inbox is made anew elsewhere, and a gap is told.
    * Order: of one sender.  Two senders' messages for a group may reach two processes in different
      orders.
    * Capacity is exact.  A full inbox or queue that is a member of a group is passed over.  What
      such a queue misses is counted by one process of all, within a second, and by another when its
      connection goes; twice if that goes at that moment, and not beyond `node_capacity` uncounted.
    * A group's message to a queue that is its member may come twice if the connection broke.

The driver
    pamqp knows the frames; the connection above it is this package's.  aiormq, which builds on
    pamqp too, waits for the answer to one method before it writes the next, and closes the channel
    when a caller that waits for one is cancelled (7.2), as `send_timeout` does here.  What the
    guarantees above need is below such a driver: the order of calls that nobody awaits, receipts in
    the write of their message, transactions in which nothing is said out of turn, the consumer that
    is granted only when the former connection's channel is gone.
"""

from __future__ import annotations

try:
    import pamqp  # noqa: F401 - the extra's driver
except ImportError as error:
    raise ImportError(
        "The RabbitMQ channel layer needs the package pamqp: pip install 'channels[rabbitmq]'."
    ) from error

from channels.backends.rabbitmq.layer import RabbitMQChannelLayer

__all__ = ["RabbitMQChannelLayer"]
