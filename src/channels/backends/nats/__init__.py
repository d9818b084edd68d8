"""Channel layers over NATS 2.9 and later, with JetStream for queues.

Topology (`channels.backends.nats.names`)
    A group is a subject, to which the processes with members are subscribed; so is the inbox of a
    process.  NATS carries one message to each process, over its cluster too.  Any other channel is
    a subject of a work-queue stream, one stream for each kind of queue, which counts messages by
    subject.  A layer's options must be the same in all its processes.  One connection for each.

What is guaranteed
    * Groups and processes: NATS keeps nothing.  Lost is what is sent while a process is cut off; it
      is told by a gap.  With `reliable` a stream keeps it for `window` (`nats.window`), and a
      process that comes back in time has missed nothing.  A sender sends again what was not
      confirmed, and what arrives twice is dropped.
    * Queues: each message to one process, once, whatever breaks in between (`nats.readers`).  What
      a process has taken dies with it: at most once.  The server's restart loses what is unread,
      unless `persistent`.
    * Queues read at least once (`nats.leases`): a message comes again when its lease is over.  A
      killed process's comes when `visibility_timeout` and a second are over: NATS tells nobody
      which connections have ended.  What is on lease, or waits to be tried again, counts against
      the capacity of its queue.
    * Delayed messages (`nats.delays`): each enters its queue once, when it is due by the clocks of
      its sender and of the process that moves it; NATS tells no time.
    * Order: of one sender.  Two senders' messages for a group may reach two processes in different
      orders, but not with `reliable`.  A message that its reader did not wait for goes to the end
      of its queue, unless it was on lease.
    * Capacity is exact for queues, but for what enters one whatever its capacity: that is beside
      it.

Why there is no client library underneath
    nats-py has a queue and a task for each subscription.  Two subscriptions of one connection lose
    the order between them: of 20,000 messages to two subjects in turn nats-py 2.16 handled up to
    four before the one that was sent first.  A process has a subscription for each group and one
    for its inbox, and what one sender sends to them must keep its order.  The protocol has a dozen
    verbs; `nats.connection` hands on each message as it comes.
"""

from channels.backends.nats.layer import NatsChannelLayer

__all__ = ["NatsChannelLayer"]
