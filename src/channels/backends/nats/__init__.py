"""Channel layers over NATS 2.9 and later, by nats-py, with JetStream for queues.

Topology (`channels.backends.nats.names`)
    A group is a subject, to which the processes with members are subscribed; so is the inbox of a
    process.  NATS carries one message to each process, over its cluster too.  Any other channel is
    a subject of a work-queue stream, one stream for each kind of queue, which counts messages by
    subject.  A layer's options must be the same in all its processes.  One connection for each.

What is guaranteed
    * Groups and processes: NATS keeps nothing.  A send returns when the server has the message.
      Lost is what is sent while a process is cut off, and what a server had not passed on when it
      ended; each process tells a gap when it is connected again.
    * Queues: what a process has taken and not acknowledged comes to another, after `ack_wait`
      seconds at the latest if it was killed.  A message may come twice when connections break.  The
      server's restart loses what is unread, unless `persistent`.
    * Attempts are JetStream's deliveries: what is given back unfinished counts, and what was on its
      way to a process that ended may count once more.
    * Order: of one sender.  Two senders' messages for a group may reach two processes in different
      orders.
    * Capacity is exact for queues; what is on lease counts.

Not offered, and refused by name: delayed messages, and channels that no process owns as members of
groups.
"""

from __future__ import annotations

try:
    import nats  # noqa: F401 - the extra's driver
except ImportError as error:
    raise ImportError(
        "The NATS channel layer needs the package nats-py: pip install 'nats-py[nkeys]'."
    ) from error

from channels.backends.nats.layer import NatsChannelLayer

__all__ = ["NatsChannelLayer"]
