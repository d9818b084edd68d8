"""A channel layer in a PostgreSQL database, 13 or later: no broker beside the database.

Topology
    Messages for groups and processes are rows of one table, a log that every process reads on from
    where it was; messages of channels that no process owns are in a second table, also while they
    are delayed or on lease.  NOTIFY only wakes readers up; they look each second anyway.  Two
    connections for a process: one writes, leases and cleans; one listens and reads.  The first may
    go through a pooler in transaction mode, the second may not (`listen_dsn`).

What is guaranteed
    * The log's order is the order of commits (writers take a lock for the one statement that they
      need), so all processes see a group's messages in one order.
    * While a connection is away the log keeps what comes: nothing is lost, doubled or reordered,
      for as long as messages live (`expiry`); what a process did not read in that time is told as
      a gap.  A batch whose answer was lost is looked up in a journal that is written with it, and a
      fence keeps the old connection from carrying it out later; so queues too get and give each
      message once.
    * The tables are UNLOGGED unless `logged` is set: a crash of the server empties them.  Lost is
      what lay unread; each process tells its listeners of a gap and reads the new log from its
      beginning, so what is sent after the restart is not missed.
    * A message that joins the caller's own transaction (`atomic_send`, `atomic_group_send`) is in
      its queue when that commits; one for a group or a process lies in an outbox until then, and
      whatever process looks first moves it into the log, within five seconds.
    * A queue's message goes to one process, at most once; by `delivery` at least once.  Capacity is
      exact, but for sends that join a transaction.
    * What is delayed, or was on lease for too long, can be taken within five seconds after it was
      due, whatever process is connected then.
    * A clock that steps, a process's or the server's, expires nothing and keeps nothing for longer.

The layer makes its tables and functions itself when they are not there (`create_schema`);
`channels.backends.postgres.schema.schema_sql` prints them for whoever may do that instead.  They
are no models: migrations do not see them.

All but the statements is the same for `channels.backends.database`, which is without the driver:
hence the layer is imported when it is asked for.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from channels.backends.postgres.layer import PostgresChannelLayer

__all__ = ["PostgresChannelLayer"]


def __getattr__(name: str) -> object:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        return importlib.import_module("channels.backends.postgres.layer").PostgresChannelLayer
    except ImportError as error:
        if error.name != "psycopg":
            raise
        raise ImportError(
            "PostgresChannelLayer needs the package psycopg, version 3: "
            "pip install 'psycopg[binary]'."
        ) from error
