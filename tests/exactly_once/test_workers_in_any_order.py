"""Workers come, go, die, sleep past their session in any order, under load.

Operations, drawn from a seed among those that leave one worker awake and at most three alive:

- add: start a worker that is off, or start again one that was stopped or killed
- stop: SIGTERM
- kill: SIGKILL, also of one that is frozen
- freeze: SIGSTOP; it stays frozen at least until its session is over and others have done its work
- wake: SIGCONT

Properties at the end:

1. no event is lost, none has two results, each payment is charged once (audit)
2. each user's events were answered in order
3. each database holds the fold of the committed changelog up to its offset, one holds all of it
4. no worker met anything that has no name: no stack trace in any log
"""

from __future__ import annotations

import random
import signal
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
from support.system import SESSION_TIMEOUT_S, Payments, Stream, System, WorkerProcess
from support.until import WAIT_S

from streamsocial_billing.kafka.committed import CommittedLog, Place
from streamsocial_billing.settings import PAYMENTS

ACTIONS = 20
JOINING = ("Joined group", "Executing _on_partitions_assigned", r"task \d+ runs")
"""What a worker says on its way into the group; the next action comes after one of them."""


@pytest.mark.timeout(600)
def test_workers_that_come_and_go_in_any_order_lose_nothing_and_double_nothing(
    broker: str, tmp_path: Path, unique_name: str
) -> None:
    """Twenty actions of every kind, one to three workers: books, order, disk agree."""
    happened = act_in_any_order(broker, tmp_path, unique_name, actions=ACTIONS, seed=49)
    assert [] == [kind for kind in ("add", "stop", "kill", "freeze", "wake") if happened[kind] < 3]


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("seed", range(1000, 1010))
def test_sixty_actions_in_any_order_lose_nothing_and_double_nothing(
    seed: int, broker: str, tmp_path: Path, unique_name: str
) -> None:
    """The same for longer, in other orders."""
    act_in_any_order(broker, tmp_path, unique_name, actions=3 * ACTIONS, seed=seed)


def act_in_any_order(broker: str, folder: Path, name: str, *, actions: int, seed: int) -> Counter[str]:
    """Act as long as payments stream in, then check everything; how often each action happened."""
    print(f"seed {seed}")
    began = time.monotonic()
    with System(broker, folder, name, workers=3) as system:
        system.gateway.faults(latency_ms=20)
        troupe = Troupe(system, random.Random(seed))
        troupe.begin()
        with Stream(system, Payments(seed), chunk=25, ahead=150, most=actions * 1000):
            for number in range(actions):
                print(f"{time.monotonic() - began:5.1f} s  {number + 1}. {troupe.act()}")
                system.wait_answered(system.answered() + troupe.random.randrange(1, 120))
            troupe.wake_all()
        report = system.check()
        assert [] == [w.name for w in system.workers if "Traceback" in w.log_file.read_text()]
    seconds = time.monotonic() - began
    print(f"{dict(troupe.happened)}, {report.events} events, {report.resent} resent, {seconds:.0f} s")
    assert report.resent > 0
    return troupe.happened


class Troupe:
    """Three workers, each off, awake or frozen."""

    def __init__(self, system: System, chosen_by: random.Random) -> None:
        self.random = chosen_by
        self.happened: Counter[str] = Counter()
        self._system = system
        self._awake: list[WorkerProcess] = []
        self._frozen: dict[WorkerProcess, Callable[[], None]] = {}

    def begin(self) -> None:
        """One worker, with a task."""
        self._add(self._system.workers[0])
        self._awake[0].wait_ready()

    def act(self) -> str:
        """Do one of the possible actions to one of the possible workers, both drawn."""
        off = [one for one in self._system.workers if one not in self._awake and one not in self._frozen]
        spare = self._awake if len(self._awake) > 1 else []
        possible = {
            self._add: off, self._stop: spare, self._kill: [*spare, *self._frozen], self._freeze: spare,
            self._wake: list(self._frozen),
        }  # fmt: skip
        action = self.random.choice([action for action, workers in possible.items() if workers])
        worker = self.random.choice(possible[action])
        action(worker)
        name = action.__name__.strip("_")
        self.happened[name] += 1
        return f"{name} {worker.name}"

    def wake_all(self) -> None:
        """Nobody stays frozen."""
        for worker in list(self._frozen):
            self._wake(worker)

    def _add(self, worker: WorkerProcess) -> None:
        worker.start()
        self._awake.append(worker)
        worker.wait_for_line(self.random.choice(JOINING))

    def _stop(self, worker: WorkerProcess) -> None:
        self._awake.remove(worker)
        assert 0 == worker.stop(), worker.tail()

    def _kill(self, worker: WorkerProcess) -> None:
        if worker in self._awake:
            self._awake.remove(worker)
        self._frozen.pop(worker, None)
        worker.kill()

    def _freeze(self, worker: WorkerProcess) -> None:
        worker.signal(signal.SIGSTOP)
        self._awake.remove(worker)
        self._frozen[worker] = self._work_goes_on()

    def _wake(self, worker: WorkerProcess) -> None:
        self._frozen.pop(worker)()
        worker.signal(signal.SIGCONT)
        self._awake.append(worker)

    def _work_goes_on(self) -> Callable[[], None]:
        """A wait until the session of who froze now is over, with all that was sent till now committed."""
        log, settings = CommittedLog(self._system.settings), self._system.settings
        places: list[Place] = [(settings.topic(PAYMENTS), p) for p in range(settings.partitions)]
        ends = log.ends(places)
        over = time.monotonic() + 1.5 * SESSION_TIMEOUT_S

        def wait() -> None:
            deadline = time.monotonic() + WAIT_S
            while (lag := log.lag(settings.app_id, ends)) or time.monotonic() < over:
                assert time.monotonic() < deadline, f"{lag}{self._system.worker.tail()}"
                self._system.results.wait(lambda: False, 0.1)

        return wait
