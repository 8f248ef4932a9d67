"""The tasks of one worker: each is opened, run, closed, opened again."""

import asyncio
import logging
from collections.abc import Iterable, Mapping
from contextlib import suppress
from typing import Any

from .assigned_task import AssignedTask
from .counts import Counts, Rebalances
from .errors import (
    ExactlyOnceError,
    KafkaUnavailable,
    MembershipLost,
    OffsetsMissing,
    OutcomeUnknown,
    RecordRefused,
    SetupRefused,
    StoreFailed,
    TaskFenced,
)
from .key_queues import HandlerFailed
from .membership import Membership
from .opening import Opening
from .operator_log import AssignmentLines
from .state import State

logger = logging.getLogger(f"{__package__}.layer")  # the name under which operators know these lines

FINAL = (HandlerFailed, RecordRefused, SetupRefused)
STORE_FAILURES_IN_A_ROW = 3
STOP_S = 4.0  # how long the end of the worker waits for threads that wait for the broker
BACKOFF_S = (0.1, 0.5, 1.0, 2.0, 5.0)


class Supervisor:
    """Keeps a task open for each partition that the group assigns; says what has changed."""

    def __init__(self, app: Any, state: State, opening: Opening) -> None:
        self.counts: dict[int, Counts] = {}
        self.rebalances = Rebalances()
        self.first_assignment = asyncio.Event()
        self._app = app
        self._state = state
        self._opening = opening
        self._clock = state.options.environment.clock
        self._assignment_lines = AssignmentLines(self._clock)
        self._owners: set[asyncio.Task[None]] = set()
        self._ready_waiters: set[asyncio.Task[None]] = set()
        self._leaving: dict[int, AssignedTask] = {}

    async def assigned(self, partitions: Mapping[int, frozenset[str]], membership: Membership) -> None:
        """Open a new epoch of each assigned task, retained ones included (point 7)."""
        stages = self.rebalances.assigned(self._clock.monotonic())
        logger.info(
            "rebalance %d: generation %d, tasks %s, stages in ms %s", self.rebalances.total,
            membership.generation, sorted(partitions), {name: round(ms) for name, ms in stages.items()},
        )  # fmt: skip
        for partition, topics in partitions.items():
            before = self._state.assigned_tasks.get(partition) or self._leaving.pop(partition, None)
            counts = self.counts.setdefault(partition, Counts())
            assigned = AssignedTask(
                partition, topics, membership, counts=counts, stages_ms=dict(stages), clock=self._clock
            )
            self._state.assigned_tasks[partition] = assigned
            owner = asyncio.get_running_loop().create_task(self._own(assigned, before))
            self._owners.add(owner)
            owner.add_done_callback(self._owners.discard)
        self._assignment_lines.changed(partitions)
        self.first_assignment.set()
        self._log_when_ready()

    def _log_when_ready(self) -> None:
        """Begin to wait for the tasks of the last assignment, to say that the worker is ready."""
        total = self.rebalances.total

        async def wait() -> None:
            await self.all_settled()
            tasks = list(self._state.assigned_tasks.values())
            if total == self.rebalances.total and not any(assigned.revoked for assigned in tasks):
                self._assignment_lines.settled(tasks, self._state.partitions)

        waiting = asyncio.get_running_loop().create_task(wait())
        self._ready_waiters.add(waiting)
        waiting.add_done_callback(self._ready_waiters.discard)

    async def revoke(self) -> None:
        """End every epoch: grace, last commit, cancel (point 7); bounded."""
        self.rebalances.revoking(self._clock.monotonic())
        ending = [assigned for assigned in self._state.assigned_tasks.values() if not assigned.revoked]
        for assigned in ending:
            assigned.revoked = True
        options = self._state.options
        failures = await asyncio.gather(*(
            assigned.task.close(grace_s=options.grace_s, last_commit_s=options.last_commit_s)
            for assigned in ending if assigned.task is not None
        ), return_exceptions=True)  # fmt: skip
        for assigned in ending:
            assigned.changed.set()
            assigned.settled.set()
        self.rebalances.revoked(self._clock.monotonic())
        for failure in failures:
            if isinstance(failure, BaseException):
                logger.error("stopping a task failed", exc_info=failure)
                await self._app.crash(failure)

    async def forget(self, partitions: Iterable[int]) -> None:
        """Drop the tasks of partitions that now belong to others."""
        self._leaving = {p: assigned for p, assigned in self._leaving.items() if not assigned.done.is_set()}
        for partition in partitions:
            assigned = self._state.assigned_tasks.pop(partition, None)
            if assigned is not None:
                self._leaving[partition] = assigned

    async def stop(self) -> None:
        """End everything, then the threads."""
        await self.revoke()
        for waiter in self._ready_waiters:
            waiter.cancel()
        if self._owners:
            await asyncio.wait(set(self._owners), timeout=STOP_S)
        late = sorted(
            partition for partition, assigned in self._state.assigned_tasks.items()
            if not assigned.done.is_set()
        )  # fmt: skip
        if late:
            logger.warning("tasks %s are left without an answer from Kafka: their next start cleans up", late)
        self._opening.stop()

    async def all_settled(self) -> None:
        """Wait until every assigned task runs, or is known to be blocked."""
        await self.first_assignment.wait()
        while waiting := [one for one in self._state.assigned_tasks.values() if not one.settled.is_set()]:
            await waiting[0].settled.wait()

    async def _own(self, assigned: AssignedTask, before: AssignedTask | None) -> None:
        """Keep one task open while it is assigned; a failure ends its epoch, a new one opens."""
        if before is not None:
            await before.done.wait()
        store_failures = tries = 0
        try:
            while not assigned.revoked:
                commits = assigned.counts.commits
                failure = await self._run_epoch(assigned)
                if failure is None or assigned.over():
                    return
                tries = 0 if assigned.counts.commits > commits else tries + 1
                store_failures = store_failures + 1 if isinstance(failure, StoreFailed) else 0
                await self._after_failure(assigned, failure, tries, store_failures)
                assigned.task = None
        except Exception as exc:
            logger.exception("task %d: internal error, the worker stops", assigned.partition)
            await self._app.crash(exc)
        finally:
            assigned.state = "closed"
            assigned.done.set()
            assigned.settled.set()

    async def _run_epoch(self, assigned: AssignedTask) -> BaseException | None:
        """Open, run, close one epoch.

        Returns:
            what ended it, or None if it was revoked.
        """
        assigned.failure, assigned.task = None, None
        assigned.changed.clear()
        try:
            await self._opening.open(assigned, self._state.member)
            if not assigned.revoked:
                assigned.runs()
                await assigned.changed.wait()
            failure = assigned.failure
        except Exception as exc:
            failure = exc
        assigned.state = "closing"
        if failure is not None:
            assigned.why = _text(failure)
        if assigned.task is not None:
            await assigned.task.close(grace_s=0, last_commit_s=0)
            await assigned.task.ended()
        return failure

    async def _after_failure(
        self, assigned: AssignedTask, failure: BaseException, tries: int, store_failures: int
    ) -> None:
        """Decide what a failure means: stop the worker, stop the task, wait for the group, or try again."""
        assigned.counts.failed(failure)
        # with Kafka away each task fails again and again: the lines about Kafka say it for all of them
        kafka = isinstance(failure, KafkaUnavailable | OutcomeUnknown)
        # a coordinator, a leader moves: by itself, and mostly the next opening goes well
        first = kafka and tries < 2  # 0: it had committed, 1: it had not yet
        assigned.state = "fencing" if first else "blocked"
        assigned.why = _text(failure)
        if isinstance(failure, FINAL) or store_failures >= STORE_FAILURES_IN_A_ROW:
            logger.critical(
                "task %d: the worker stops: %s", assigned.partition, assigned.why,
                extra={"task": assigned.partition},
            )
            await self._app.crash(failure)
            await _until_revoked(assigned)
            return
        if isinstance(failure, OffsetsMissing):
            logger.error(
                "task %d is stopped: %s", assigned.partition, assigned.why,
                extra={"task": assigned.partition},
            )
            assigned.settled.set()
            await _until_revoked(assigned)
            return
        known = isinstance(failure, ExactlyOnceError | OSError)  # OSError: the disk, by name
        logger.log(
            logging.INFO if first else logging.WARNING,
            "task %d starts again after %s: %s", assigned.partition, type(failure).__name__, assigned.why,
            exc_info=None if known else failure, extra={"task": assigned.partition, "fold": kafka},
        )  # fmt: skip
        if isinstance(failure, TaskFenced | MembershipLost | OutcomeUnknown):
            await self._until_member(assigned)
        await self._pause(assigned, BACKOFF_S[min(tries, len(BACKOFF_S) - 1)])

    async def _pause(self, assigned: AssignedTask, seconds: float) -> None:
        """Wait, unless the group takes the task away."""
        assigned.changed.clear()
        if not assigned.revoked:
            with suppress(TimeoutError):
                async with asyncio.timeout(seconds):
                    await assigned.changed.wait()

    async def _until_member(self, assigned: AssignedTask) -> None:
        """Wait until a heartbeat confirms the membership, or the group takes the task away (point 6)."""
        while not assigned.revoked and self._state.member is not None:
            if await self._state.member.is_member(assigned.membership):
                return
            await self._pause(assigned, 0.5)


async def _until_revoked(assigned: AssignedTask) -> None:
    """Open nothing more: the worker ends, or the group takes the task away."""
    while not assigned.revoked:
        assigned.changed.clear()
        await assigned.changed.wait()


def _text(failure: BaseException) -> str:
    """The failure in words, for whoever reads the task's status."""
    return str(failure) or repr(failure)
