"""A channel layer in any database of Django's: the choice without a broker for small sites.

Topology
    SQLite, MySQL, MariaDB, PostgreSQL, Oracle: whatever an alias of DATABASES names, on one machine
    or many.  Messages for groups and processes are rows of one table, a log that every process
    reads on from where it was; messages of channels that no process owns are in a second table,
    also while they are delayed or on lease.  Nothing wakes readers up: they look at one row, each
    20 ms while there is traffic, each 500 ms when there has been none (`poll_shortest`,
    `poll_longest`).  Two threads with a connection each for a process.

What is guaranteed
    * Every batch of a process is a transaction that begins by taking the row with the log's last
      id, so ids are in the order of commits: no reader passes one that is still to come, and all
      processes see a group's messages in one order.
    * Nothing is lost, doubled or reordered while the database is out of reach, for as long as
      messages live (`expiry`), and nothing by its restart; what a process did not read in that time
      is told as a gap.  A batch whose answer was lost is looked up in a journal that is written
      with it.
    * A queue's message goes to one process, at most once; by `delivery` at least once.  Capacity is
      exact.
    * What is delayed, or was on lease for too long, can be taken within five seconds after it was
      due, whatever process is connected then.
    * Deadlines and leases are by the database's clock.  One that steps, or a process's, expires
      nothing and keeps nothing for longer.

The layer makes its tables itself when they are not there; they are in no migration and no app.
Each batch of sends is a transaction, so a few hundred batches a second are the limit; and writers
take turns.  With SQLite, set `"OPTIONS": {"init_command": "PRAGMA journal_mode=WAL;"}`, and better
use a file of its own.  When PostgreSQL is there, `PostgresChannelLayer` does all this faster.
"""

from channels.backends.database.layer import DatabaseChannelLayer

__all__ = ["DatabaseChannelLayer"]
