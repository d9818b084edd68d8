"""Channel layers over RabbitMQ 3.10 and later, without a plugin: the second tier.

It has groups, channels of processes, and queues that are read by lease.  It has no delayed
messages, and no groups with channels as members that no process owns; both are refused by name.

Topology (`channels.backends.rabbitmq.names`)
    Each process has an inbox: a durable queue with a bound, which the broker deletes when nobody
    has read it for `window` seconds.  A group is a routing key of one direct exchange, to which the
    inboxes of the processes with members are bound; so a send to a group is one message to the
    broker and one to each of these processes.  Any other channel is a durable queue with its
    capacity as its bound.  Each process has one connection.

What is guaranteed
    * While a connection is away the inbox keeps what comes.  On reconnect the sender sends again
      what was not confirmed, and what arrives twice is dropped: for groups and channels of a
      process nothing lost, doubled or reordered for `window` seconds and `node_capacity` messages.
    * Queues: at least once.  Nothing is lost while the broker lives; when a connection breaks, what
      was just sent may be there twice, and what was just taken, or is on lease, comes again.
    * A message that comes back to its queue goes before the others.  While the queue is full it
      waits in the process that had it.
    * The broker's restart loses what lay in it unread, unless `persistent` for queues; groups are
      kept by the broker, and each process tells its listeners of a gap.
    * In a cluster a queue is on one node.  If that goes down its messages wait there, and so do
      sends to it; an inbox is made anew elsewhere, and a gap is told.
    * Order: of one sender.  Two senders' messages for a group may reach two processes in different
      orders.
    * Capacity is exact.  A full inbox is passed over, which the sender counts.

The driver
    aiormq, the part of aio-pika that speaks AMQP.  aio-pika's own part are objects for exchanges,
    queues and messages, and connections that restore these; the layer restores what it needs
    itself, and needs three things that are below: its socket, the order of publishes, and the
    consumers that the broker cancels.
"""

from __future__ import annotations

try:
    import aiormq  # noqa: F401 - the extra's driver
except ImportError as error:
    raise ImportError(
        "The RabbitMQ channel layer needs the package aiormq: pip install aiormq."
    ) from error

from channels.backends.rabbitmq.layer import RabbitMQChannelLayer

__all__ = ["RabbitMQChannelLayer"]
