"""Which workers there are, and which are started, replaced and ended: the rules of the supervisor.

    what happens                        what is done
    the first worker is ready           all others are started
    one ends before all were ready      all end; the supervisor ends with its status
    a serving worker ends               another is started at once; if that happens again within
                                        STABLE_SECONDS, after a wait that doubles
    no sign of life from a loop         SIGABRT, then SIGKILL; then as above
    SIGHUP                              slot after slot: another is started; when it is ready, the
                                        former one drains
    new code does not start             it is given up; the workers of before serve on
    a worker has reached its bound      as for SIGHUP, in its slot alone

A slot has one worker that serves, one that starts and one that ends, at most.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Final

from channels.supervisor.options import Workers
from channels.supervisor.worker_process import Launch, SupervisedWorker, WorkerStage, ended_text

logger: Final = logging.getLogger("channels.supervisor")

#: A worker that ends sooner than so long after its start has not proven itself.
STABLE_SECONDS: Final = 10.0
#: The second wait of a back-off; the first is none.
_FIRST_WAIT_SECONDS: Final = 0.5
#: Between the latest end that a worker has promised and its end by force.
_KILL_SECONDS: Final = 1.0
#: For workers that were told to wait for nothing: less than the supervisor itself has.
_HURRY_SECONDS: Final = 0.6
_CANNOT_START: Final = 1


class Slot:
    """The place of one worker."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.serving: SupervisedWorker | None = None
        self.starting: SupervisedWorker | None = None
        self.leaving: SupervisedWorker | None = None
        self._failures = 0
        self._not_before = 0.0

    def workers(self) -> Iterator[SupervisedWorker]:
        """Those that have not ended."""
        for worker in (self.serving, self.starting, self.leaving):
            if worker is not None:
                yield worker

    def forget(self, worker: SupervisedWorker) -> None:
        for name in ("serving", "starting", "leaving"):
            if getattr(self, name) is worker:
                setattr(self, name, None)

    def may_start(self, now: float) -> bool:
        """True if nothing starts here, and no back-off forbids it."""
        return self.starting is None and now >= self._not_before

    def back_off(self, worker: SupervisedWorker, now: float, most: float) -> float:
        """The wait before the next start here, after the end of `worker`."""
        if now - worker.started_at >= STABLE_SECONDS:
            self._failures = 0
        seconds = 0.0
        if self._failures:
            seconds = min(most, _FIRST_WAIT_SECONDS * 2.0 ** min(self._failures - 1, 30))
        self._failures += 1
        self._not_before = now + seconds
        return seconds


class WorkerPool:
    """The slots.  All methods are called from one thread, with the time of now.

    Args:
        stop_seconds: The longest that a worker takes to end, from SIGTERM on.
    """

    def __init__(self, launch: Launch, options: Workers, stop_seconds: float) -> None:
        self._launch = launch
        self._options = options
        self._stop_seconds = stop_seconds
        self.slots = [Slot(number) for number in range(1, options.workers + 1)]
        self._wanted = self._proven = self._asked = 0
        self.has_started = False
        self.is_stopping = False
        #: Of the supervisor, once all workers have ended.
        self.status = 0

    @property
    def is_rolling(self) -> bool:
        """True while workers with newer code are to take the place of others."""
        return any(self._is_old(slot.serving) for slot in self.slots)

    @property
    def has_ended(self) -> bool:
        return self.is_stopping and not any(self.workers())

    def workers(self) -> Iterator[SupervisedWorker]:
        """All that have not ended."""
        for slot in self.slots:
            yield from slot.workers()

    def look(self, now: float) -> None:
        """End what is overdue, and start what is missing."""
        for worker in self.workers():
            self._judge(worker, now)
        if self.is_stopping:
            return
        for slot in self.slots:
            if slot.may_start(now) and self._wants_start(slot):
                slot.starting = worker = SupervisedWorker(
                    self._launch, slot.number, self._wanted, now
                )
                logger.debug("%s is starting.", worker)

    def _wants_start(self, slot: Slot) -> bool:
        if slot.serving is None:
            # One shows whether the application starts at all, and says so once.
            return self.has_started or slot is self.slots[0] or bool(self.slots[0].serving)
        if slot.leaving is not None or any(each.starting for each in self.slots):
            return False
        return self._is_old(slot.serving) or bool(slot.serving.recycle_reason)

    def _is_old(self, worker: SupervisedWorker | None) -> bool:
        return worker is not None and worker.generation < self._wanted

    def _judge(self, worker: SupervisedWorker, now: float) -> None:
        options = self._options
        if worker.kill_at is not None:
            if now >= worker.kill_at:
                logger.warning("%s did not end in time and is killed.", worker)
                worker.kill_at = None
                worker.kill()
        elif worker.stage is WorkerStage.STARTING:
            most = options.worker_start_timeout
            if most is not None and now - worker.started_at >= most:
                logger.error("%s did not start within %g s and is ended.", worker, most)
                worker.abort(now)
        elif worker.stage is WorkerStage.SERVING:
            most = options.worker_heartbeat
            if most is not None and now - worker.heard_at >= most:
                logger.error(
                    "%s hangs: its event loop gave no sign of life for %g s.  It is ended.",
                    worker,
                    most,
                )
                worker.abort(now)

    def was_late(self, now: float) -> None:
        """The supervisor itself did not run for a while: no worker is to blame for its silence."""
        for worker in self.workers():
            worker.heard_at = now

    # What workers do.

    def on_ready(self, worker: SupervisedWorker, now: float) -> None:
        """Its application has started, and it accepts connections."""
        slot = self.slots[worker.number - 1]
        if worker.stage is not WorkerStage.STARTING:
            return
        worker.stage, worker.heard_at = WorkerStage.SERVING, now
        former, slot.serving, slot.starting = slot.serving, worker, None
        self._proven = max(self._proven, worker.generation)
        logger.info("%s serves.", worker)
        if former is not None:
            reason = former.recycle_reason or "new code serves in its place"
            logger.info("%s drains: %s.", former, reason)
            spread = self._options.drain_timeout
            slot.leaving = former
            former.drain(spread, now + spread + self._stop_seconds + _KILL_SECONDS)
            if former.recycle_reason:
                slot.back_off(former, now, self._options.worker_backoff)
        if all(each.serving for each in self.slots):
            self.has_started = True

    def on_end(self, worker: SupervisedWorker, status: int, now: float) -> None:
        """Its process has ended."""
        slot = self.slots[worker.number - 1]
        was_serving, was_starting = slot.serving is worker, slot.starting is worker
        slot.forget(worker)
        worker.has_ended(status)
        how = ended_text(status)
        if self.is_stopping or not (was_serving or was_starting):
            logger.info("%s %s.", worker, how)
            return
        if was_starting and not self.has_started:
            logger.error("%s %s before it served: ending.", worker, how)
            self.status = status if status > 0 else _CANNOT_START
            self.stop(now)
            return
        if was_starting and worker.generation > self._proven:
            self._wanted = self._proven
            logger.error(
                "%s %s before it served: new code does not start.  The workers of before serve on; "
                "correct it and send SIGHUP again.",
                worker,
                how,
            )
        seconds = slot.back_off(worker, now, self._options.worker_backoff)
        if slot.serving is None or self._wants_start(slot):
            when = f"in {seconds:g} s" if seconds else "at once"
            logger.error("%s %s.  Another is started %s.", worker, how, when)

    # What the supervisor is told.

    def renew(self) -> bool:
        """Replace all workers by ones with the code of now; False if that cannot be done now."""
        if self.is_stopping or not self.has_started:
            return False
        self._asked += 1
        self._wanted = self._asked
        return True

    def stop(self, now: float) -> None:
        """End all in order."""
        self.is_stopping = True
        for worker in self.workers():
            worker.terminate(now + self._stop_seconds + _KILL_SECONDS)

    def hurry(self, now: float) -> None:
        """End all, without waiting for anything."""
        self.is_stopping = True
        for worker in self.workers():
            worker.terminate(now + _HURRY_SECONDS)
