"""A test's connection in another thread: its transaction is the outside world there.

Work that another thread does for a test sees what the test has not committed, and is rolled back
with it.  In all else it runs as if that transaction were not there: outside of `atomic()` it
is in autocommit mode, an outermost `atomic()` begins and commits, with a savepoint in the place of
a transaction, and the callbacks of `transaction.on_commit` run then.
"""

from __future__ import annotations

import threading

from django.db.backends.base.base import BaseDatabaseWrapper


class LentConnection(BaseDatabaseWrapper):
    """What a thread uses in place of its own connection, over the connection of a test.

    Made by `lend`, in the thread that is to use it.
    """

    lender: BaseDatabaseWrapper
    #: Whether its savepoint is set.
    _is_begun = False

    @property
    def is_over(self) -> bool:
        """Whether the test's transaction has ended, and so the loan."""
        return not self.lender.in_atomic_block

    @property
    def queries_logged(self) -> bool:
        """As the test has it, which may count the queries of its connection."""
        return self.lender.queries_logged

    def close(self) -> None:
        """Do nothing: the connection is the test's."""

    def _start_transaction_under_autocommit(self) -> None:
        self._execute(self.ops.savepoint_create_sql(self._name))
        self._is_begun = True

    def _set_autocommit(self, autocommit: bool) -> None:
        if autocommit:
            self._commit()
        else:
            self._start_transaction_under_autocommit()

    def _commit(self) -> None:
        if self._is_begun:
            self._is_begun = False
            self._execute(self.ops.savepoint_commit_sql(self._name))

    def _rollback(self) -> None:
        if self._is_begun:
            self._execute(self.ops.savepoint_rollback_sql(self._name))
            self._commit()

    def _execute(self, sql: str) -> None:
        with self.cursor() as cursor:
            cursor.execute(sql)

    @property
    def _name(self) -> str:
        # Django numbers its savepoints by thread too, but begins their names with "s".
        return f"channels_{threading.get_ident()}"


def lend(lender: BaseDatabaseWrapper) -> LentConnection:
    """A connection for this thread that works in the transaction that `lender` is in.

    The thread of `lender` must not use it meanwhile.
    """
    kind = type("LentConnection", (LentConnection, type(lender)), {"__module__": __name__})
    lent: LentConnection = kind(lender.settings_dict, lender.alias)
    lent.lender = lender
    lent.connection = lender.connection
    lent.autocommit = True
    lent.queries_log = lender.queries_log
    lent.execute_wrappers = lender.execute_wrappers
    return lent
