"""The tasks of one worker: each is opened, run, closed, opened again."""

import asyncio
import logging
import time
from collections.abc import Iterable, Mapping
from contextlib import suppress
from typing import Any

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
from .slot import Slot
from .speaking import Assignments
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
        self._assignments = Assignments()
        self._owners: set[asyncio.Task[None]] = set()
        self._sayers: set[asyncio.Task[None]] = set()
        self._leaving: dict[int, Slot] = {}

    async def assigned(self, partitions: Mapping[int, frozenset[str]], membership: Membership) -> None:
        """Open a new incarnation of each assigned task, retained ones included (point 7)."""
        stages = self.rebalances.assigned(time.monotonic())
        logger.info(
            "rebalance %d: generation %d, tasks %s, stages in ms %s", self.rebalances.total,
            membership.generation, sorted(partitions), {name: round(ms) for name, ms in stages.items()},
        )  # fmt: skip
        for partition, topics in partitions.items():
            before = self._state.slots.get(partition) or self._leaving.pop(partition, None)
            counts = self.counts.setdefault(partition, Counts())
            slot = Slot(partition, topics, membership, counts=counts, stages_ms=dict(stages))
            self._state.slots[partition] = slot
            owner = asyncio.get_running_loop().create_task(self._own(slot, before))
            self._owners.add(owner)
            owner.add_done_callback(self._owners.discard)
        self._assignments.changed(partitions)
        self.first_assignment.set()
        self._say_when_settled()

    def _say_when_settled(self) -> None:
        """Begin to wait for the tasks of the last assignment, to say that the worker is ready."""
        total = self.rebalances.total

        async def wait() -> None:
            await self.all_settled()
            slots = list(self._state.slots.values())
            if total == self.rebalances.total and not any(slot.revoked for slot in slots):
                self._assignments.settled(slots, self._state.partitions)

        waiting = asyncio.get_running_loop().create_task(wait())
        self._sayers.add(waiting)
        waiting.add_done_callback(self._sayers.discard)

    async def revoke(self) -> None:
        """End every incarnation: grace, last commit, cancel (point 7); bounded."""
        self.rebalances.revoking(time.monotonic())
        slots = [slot for slot in self._state.slots.values() if not slot.revoked]
        for slot in slots:
            slot.revoked = True
        options = self._state.options
        failures = await asyncio.gather(*(
            slot.task.close(grace_s=options.grace_s, last_commit_s=options.last_commit_s)
            for slot in slots if slot.task is not None
        ), return_exceptions=True)  # fmt: skip
        for slot in slots:
            slot.changed.set()
            slot.settled.set()
        self.rebalances.revoked(time.monotonic())
        for failure in failures:
            if isinstance(failure, BaseException):
                logger.error("stopping a task failed", exc_info=failure)
                await self._app.crash(failure)

    async def forget(self, partitions: Iterable[int]) -> None:
        """Drop the slots of partitions that now belong to others."""
        self._leaving = {p: slot for p, slot in self._leaving.items() if not slot.done.is_set()}
        for partition in partitions:
            slot = self._state.slots.pop(partition, None)
            if slot is not None:
                self._leaving[partition] = slot

    async def stop(self) -> None:
        """End everything, then the threads."""
        await self.revoke()
        for sayer in self._sayers:
            sayer.cancel()
        if self._owners:
            await asyncio.wait(set(self._owners), timeout=STOP_S)
        late = sorted(partition for partition, slot in self._state.slots.items() if not slot.done.is_set())
        if late:
            logger.warning("tasks %s are left without an answer from Kafka: their next start cleans up", late)
        self._opening.stop()

    async def all_settled(self) -> None:
        """Wait until every assigned task runs, or is known to be blocked."""
        await self.first_assignment.wait()
        while waiting := [slot for slot in self._state.slots.values() if not slot.settled.is_set()]:
            await waiting[0].settled.wait()

    async def _own(self, slot: Slot, before: Slot | None) -> None:
        """Keep one task open while it is assigned; a failure ends its incarnation, a new one opens."""
        if before is not None:
            await before.done.wait()
        store_failures = tries = 0
        try:
            while not slot.revoked:
                commits = slot.counts.commits
                failure = await self._run_incarnation(slot)
                if failure is None or slot.over():
                    return
                tries = 0 if slot.counts.commits > commits else tries + 1
                store_failures = store_failures + 1 if isinstance(failure, StoreFailed) else 0
                await self._after_failure(slot, failure, tries, store_failures)
                slot.task = None
        except Exception as exc:
            logger.exception("task %d: internal error, the worker stops", slot.partition)
            await self._app.crash(exc)
        finally:
            slot.state = "closed"
            slot.done.set()
            slot.settled.set()

    async def _run_incarnation(self, slot: Slot) -> BaseException | None:
        """Open, run, close one incarnation.

        Returns:
            what ended it, or None if it was revoked.
        """
        slot.failure, slot.task = None, None
        slot.changed.clear()
        try:
            await self._opening.open(slot, self._state.member)
            if not slot.revoked:
                slot.runs()
                await slot.changed.wait()
            failure = slot.failure
        except Exception as exc:
            failure = exc
        slot.state = "closing"
        if slot.task is not None:
            await slot.task.close(grace_s=0, last_commit_s=0)
            await slot.task.ended()
        return failure

    async def _after_failure(
        self, slot: Slot, failure: BaseException, tries: int, store_failures: int
    ) -> None:
        """Decide what a failure means: stop the worker, stop the task, wait for the group, or try again."""
        slot.counts.failed(failure)
        # with Kafka away each task fails again and again: the lines about Kafka say it for all of them
        kafka = isinstance(failure, KafkaUnavailable | OutcomeUnknown)
        # a coordinator, a leader moves: by itself, and mostly the next opening goes well
        first = kafka and tries < 2  # 0: it had committed, 1: it had not yet
        slot.state = "fencing" if first else "blocked"
        slot.why = str(failure) or repr(failure)
        if isinstance(failure, FINAL) or store_failures >= STORE_FAILURES_IN_A_ROW:
            logger.critical(
                "task %d: the worker stops: %s", slot.partition, slot.why, extra={"task": slot.partition}
            )
            await self._app.crash(failure)
            await _until_revoked(slot)
            return
        if isinstance(failure, OffsetsMissing):
            logger.error(
                "task %d is stopped: %s", slot.partition, slot.why, extra={"task": slot.partition}
            )
            slot.settled.set()
            await _until_revoked(slot)
            return
        known = isinstance(failure, ExactlyOnceError | OSError)  # OSError: the disk, by name
        logger.log(
            logging.INFO if first else logging.WARNING,
            "task %d starts again after %s: %s", slot.partition, type(failure).__name__, slot.why,
            exc_info=None if known else failure, extra={"task": slot.partition, "fold": kafka},
        )  # fmt: skip
        if isinstance(failure, TaskFenced | MembershipLost | OutcomeUnknown):
            await self._until_member(slot)
        await self._pause(slot, BACKOFF_S[min(tries, len(BACKOFF_S) - 1)])

    async def _pause(self, slot: Slot, seconds: float) -> None:
        """Wait, unless the group takes the task away."""
        slot.changed.clear()
        if not slot.revoked:
            with suppress(TimeoutError):
                async with asyncio.timeout(seconds):
                    await slot.changed.wait()

    async def _until_member(self, slot: Slot) -> None:
        """Wait until a heartbeat confirms the membership, or the group takes the task away (point 6)."""
        while not slot.revoked and self._state.member is not None:
            if await self._state.member.is_member(slot.membership):
                return
            await self._pause(slot, 0.5)


async def _until_revoked(slot: Slot) -> None:
    """Open nothing more: the worker ends, or the group takes the task away."""
    while not slot.revoked:
        slot.changed.clear()
        await slot.changed.wait()
