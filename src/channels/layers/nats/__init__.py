"""Channel layers over NATS 2.9 and later, with JetStream for queues.

Topology (`channels.layers.nats.names`)
    A group is a subject, to which the processes with members are subscribed; so is the inbox of a
    process.  NATS carries one message to each process, over its cluster too.  Any other channel is
    a subject of a work-queue stream, one stream for each capacity, which counts messages by
    subject.  A channel must have the same capacity in all processes.  One connection for each.

What is guaranteed
    * Groups and processes: NATS keeps nothing.  Lost is what is sent while a process is cut off;
      it is told by a gap.  A sender sends again what was not confirmed, and what arrives twice is
      dropped.
    * Queues: each message to one process, once, also when connections break for less than
      `ack_wait`.  What a process has taken dies with it: at most once.  The server's restart loses
      what is unread, unless `persistent`.
    * Order: of one sender.  Two senders' messages for a group may reach two processes in different
      orders.  A message that its reader did not wait for goes to the end of its queue.
    * Capacity is exact for queues.  Groups take only channels of processes.
"""

from channels.layers.nats.layer import NatsChannelLayer

__all__ = ["NatsChannelLayer"]
