"""The conductor: lets payments flow, plays the schedule against the clock, then wants everything drained."""

from __future__ import annotations

import threading
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from streamsocial_billing.audit.books import Books
from streamsocial_billing.audit.readers import KafkaSide
from streamsocial_billing.kafka.committed import KafkaProblem
from torture.faults import FaultFailed, act
from torture.schedule import Planned
from torture.system import System
from torture.watch import Watch, supervise

LOOK_EVERY_S: Final = 0.1
FIRST_RUN_WITHIN_S: Final = 60.0
STALL_S: Final = 60.0
"""Without any progress for so long the quiet end has failed. Both by the number of brokers: three share the
machine with the workers."""
LATE_S: Final = 180.0
"""So much longer than planned may the faults take, by the number of brokers; on a busy machine twice the plan
and this."""


class RunFailed(Exception):
    """Raised when a run cannot come to its end: what stood still, with the last words of every process."""


@dataclass
class State:
    """What the display shows."""

    planned: int
    elapsed_s: float = 0.0
    phase: str = "starts"
    begun: int = 0
    ended: int = 0
    active: dict[int, Planned] = field(default_factory=dict)
    failures: list[str] = field(default_factory=list)
    behind: int = 0
    open: int = 0


Show = Callable[[State, Watch], None]


class Conductor:
    """Plays one schedule on a system that has been entered.

    `patient`: the control may stand still in the end; that is noted, then it is judged like any other.
    """

    def __init__(
        self, system: System, schedule: Sequence[Planned], length_s: float, show: Show, *,
        patient: bool = False,
    ) -> None:  # fmt: skip
        self.state = State(len(schedule))
        self._patient = patient
        self._system = system
        self._schedule = schedule
        self._length_s = length_s
        self._show = show
        self._lock = threading.Lock()

    def run(self) -> None:
        """From the first start to the last worker's end; raises RunFailed."""
        system = self._system
        system.write_run(started_at=time.time())
        with Watch(system) as watch:
            try:
                self._begin(watch)
                self._storm(watch)
                self._quiet_end(watch)
            except RunFailed as error:
                self.state.failures.append(str(error))
                self._stop_at_once()
                raise
            finally:
                system.write_run(
                    started_at=self._started_at, ended_at=time.time(), failures=self.state.failures,
                    answered=watch.answered, markers_written=watch.markers,
                )  # fmt: skip

    def _begin(self, watch: Watch) -> None:
        self._started_at = time.time()
        for worker in self._system.residents:
            worker.wanted = True
            worker.start()
        for worker in self._system.residents:
            if not worker.wait_runs(FIRST_RUN_WITHIN_S * self._system.kafka.count):
                raise RunFailed(f"{worker.name} runs no task:\n{worker.tail()}")
        self._system.intake.allow(0)
        self._system.intake.launch()

    # -- the storm

    def _storm(self, watch: Watch) -> None:
        """Every fault in a thread of its own at its time; payments in step with the faults."""
        self.state.phase = "storm"
        self._storm_began = time.monotonic()
        threads: list[threading.Thread] = []
        waiting = list(self._schedule)
        while waiting or any(thread.is_alive() for thread in threads):
            while waiting and waiting[0].at_s <= self.state.elapsed_s:
                threads.append(threading.Thread(target=self._play, args=(waiting.pop(0),), daemon=True))
                threads[-1].start()
            self._allow()
            self._look(watch)
            if self.state.elapsed_s > 2 * self._length_s + LATE_S * self._system.kafka.count:
                raise RunFailed(f"faults do not end: {self.state.active}\n{self._last_words()}")

    def _allow(self) -> None:
        """Payments flow as long as faults come, also where they come late."""
        time_share = self.state.elapsed_s / self._length_s
        # of three brokers' faults many may have begun that wait for the one before
        begun = self.state.begun if self._system.kafka.count == 1 else self.state.ended
        share = min(time_share, (begun + 1) / max(1, len(self._schedule)))
        self._system.intake.allow(int(self._system.payments * min(1.0, share)))

    def _play(self, fault: Planned) -> None:
        began = time.time()
        with self._lock:
            self.state.begun += 1
            self.state.active[fault.number] = fault
        self._system.saw("fault begins", number=fault.number, kind=fault.kind, target=fault.target)
        ended: dict[str, Any] = {}
        try:
            ended["detail"] = act(self._system, fault)
        except FaultFailed as error:
            ended["failed"] = str(error)
        except Exception:  # the action itself broke: no verdict on the product, but none on this run either
            ended["broken"] = traceback.format_exc()
        with self._lock:
            self.state.ended += 1
            del self.state.active[fault.number]
            for sort in ("failed", "broken"):
                if sort in ended:
                    self.state.failures.append(f"fault {fault.number} {fault.kind} {sort}: {ended[sort]}")
        self._system.fault_log.write(
            number=fault.number, at=began, until=time.time(), kind=fault.kind, target=fault.target,
            planned_at_s=fault.at_s, length_s=fault.length_s, args=dict(fault.args), **ended,
        )  # fmt: skip

    def _look(self, watch: Watch) -> None:
        """What is done again and again: supervise, show, breathe."""
        for worker in self._system.workers.values():
            supervise(self._system, worker)
        intake = self._system.intake
        if not intake.running and not intake.done and intake.lock.acquire(blocking=False):
            try:
                self._system.saw("exit", worker="intake", code=intake.code, why=intake.tail(5))
                intake.launch()
            finally:
                intake.lock.release()
        if not self._system.gateway.running:
            raise RunFailed(f"the gateway ended: {self._system.gateway.tail()}")
        self.state.elapsed_s = time.monotonic() - self._storm_began
        self._show(self.state, watch)
        time.sleep(LOOK_EVERY_S)

    # -- the quiet end

    def _quiet_end(self, watch: Watch) -> None:
        """Heal everything, wait until all is drained, stop."""
        self.state.phase = "quiet end"
        system = self._system
        system.saw("quiet")
        system.gateway.faults()
        for link in system.kafka.links_of_clients.values():
            link.trouble()
        system.kafka.settle()
        self._newest_release()
        system.intake.allow(system.payments)
        self._drain(watch)
        system.saw("drained", count=watch.answered)
        self.state.phase = "stops"
        running = [worker for worker in system.workers.values() if worker.running]
        for worker in running:
            worker.wanted = False
        for worker in running:
            in_time = worker.stop()
            system.saw("stopped", worker=worker.name, code=worker.code if in_time else "killed")
            if not in_time or worker.code != 0:
                self.state.failures.append(f"{worker.name} did not stop in order:\n{worker.tail()}")
            self._show(self.state, watch)

    def _stop_at_once(self) -> None:
        """What is left is judged all the same, and for that nothing may go on."""
        for worker in self._system.workers.values():
            worker.wanted = False
            worker.kill()

    def _newest_release(self) -> None:
        """After a deploy that was taken back: nothing may be left of the added topic either."""
        for worker in self._system.residents:
            if not worker.added_topic and self._system.added:
                worker.stop()
            worker.added_topic = self._system.added
            worker.settle()
        for worker in self._system.residents:
            if not worker.wait_runs(FIRST_RUN_WITHIN_S * self._system.kafka.count):
                self._stands_still(f"{worker.name} runs no task in the end:\n{worker.tail()}")

    def _drain(self, watch: Watch) -> None:
        """Until everything sent is handled, nothing is unknown; raises RunFailed if that stands still."""
        books = Books()
        before: tuple[Any, ...] = ()
        changed_at = time.monotonic()
        kafka: KafkaSide | None = None
        while True:
            try:
                kafka = kafka or KafkaSide(self._system.settings, books)
                self.state.behind = kafka.read_on() + self._system.behind_added()
            except KafkaProblem as error:
                self._system.saw("not readable", why=str(error))
                self.state.behind = -1
            self.state.open = len(books.open_payments())
            if self._system.intake.done and self.state.behind == 0 and self.state.open == 0:
                return
            now = (self.state.behind, self.state.open, len(books.results), len(books.sent))
            if now != before:
                before, changed_at = now, time.monotonic()
            elif time.monotonic() - changed_at > STALL_S * self._system.kafka.count:
                self._stands_still(f"not drained: {self.state}\n{self._last_words()}")
                return
            self._look(watch)

    def _stands_still(self, why: str) -> None:
        """The end of a run of the product; of the control, one more failure."""
        if not self._patient:
            raise RunFailed(why)
        self.state.failures.append(why)

    def _last_words(self) -> str:
        children = [*self._system.workers.values(), self._system.intake]
        return "".join(f"\n--- {child.name} (code {child.code})\n{child.tail()}\n" for child in children)
