"""Channel layers over RabbitMQ 3.8 and later.

Topology (`channels.layers.rabbitmq.names`)
    Each process has an inbox: a durable queue with a bound, which the broker deletes when nobody
    has read it for `window` seconds.  A group is a routing key of one direct exchange, to which the
    inboxes of the processes with members are bound; so a send to a group is one message to the
    broker and one to each of these processes.  Any other channel is a durable queue with its
    capacity as its bound.  One connection for each process.

What is guaranteed
    * While a connection is away the inbox keeps what comes.  On reconnect the sender sends again
      what was not confirmed, and what arrives twice is dropped: nothing lost, doubled or reordered
      for `window` seconds and `node_capacity` messages.
    * A queue's message goes to one process, once, also when connections break: receipts tell a
      sender what has been carried out (`publisher`), and a reader takes a message in a transaction
      (`readers`).  Only a cut between a message and its receipt, which leave in one write, doubles
      it.  What a process has taken dies with it: at most once.
    * The broker's restart loses what lay in it unread, unless `persistent` for queues; groups are
      kept by the broker, and each process tells its listeners of a gap.
    * Order: of one sender.  Two senders' messages for a group may reach two processes in different
      orders.
    * Capacity is exact.  A full inbox or queue that is a member of a group is passed over.
    * A group's message to a queue that is its member may come twice if the connection broke.
"""

from __future__ import annotations

try:
    import pamqp  # noqa: F401 - the extra's driver
except ImportError as error:
    raise ImportError(
        "The RabbitMQ channel layer needs the package pamqp: pip install 'channels[rabbitmq]'."
    ) from error

from channels.layers.rabbitmq.layer import RabbitMQChannelLayer

__all__ = ["RabbitMQChannelLayer"]
