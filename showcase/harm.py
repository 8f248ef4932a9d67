"""The SIGKILLs of a run: a worker half-way; of three brokers one before that."""

from __future__ import annotations

import time
from typing import Final, NamedTuple

from showcase.errors import ShowcaseFailed
from showcase.kafka import KafkaPart, OwnKafka
from showcase.progress import Progress, Tally
from showcase.system import System, Worker
from streamsocial_billing.settings import PAYMENTS

BROKER_AWAY_S: Final = 5.0
"""Longer than its session (3 s): its partitions get other leaders before it is back."""
BACK_WITHIN_S: Final = 120.0
ASK_EVERY_S: Final = 0.5


class Survived(NamedTuple):
    """What was done, what was there in the end; `brokers` is 0 where Kafka is not ours."""

    kills_wanted: int
    kills: int
    brokers: int
    in_sync: int


class Harm:
    """Does what is due, at each look; `over` waits until all is there again."""

    def __init__(self, system: System, tally: Tally, progress: Progress) -> None:
        self._system = system
        self._tally = tally
        self._progress = progress
        self._worker: Worker | None = None
        kafka = system.own_kafka
        self._kafka = kafka if kafka is not None and len(kafka.brokers) > 1 else None
        self._broker = BrokerAway(self._kafka, system, tally, progress) if self._kafka is not None else None

    def look(self) -> None:
        """Kill, start again, as far as the results have come."""
        if self._broker is not None:
            self._broker.look()
        if self._worker is None and self._tally.results >= self._tally.events // 2:
            self._worker = self._kill(self._system.workers[0])

    def over(self) -> Survived:
        """Return once a broker that was killed holds every record again; raises ShowcaseFailed."""
        kills = int(self._worker is not None)
        if self._broker is None or self._kafka is None:
            return Survived(1, kills, 0, 0)
        back = self._broker.wait_until_it_is_back()
        return Survived(2, kills + back, len(self._kafka.brokers), self._kafka.in_sync())

    def _kill(self, worker: Worker) -> Worker:
        """SIGKILL, then a new process on the same data at once."""
        owned = len(worker.assigned)
        pid = worker.kill()
        worker.look()
        at = f"at {self._tally.results:,} of {self._tally.events:,} results"
        self._progress.say(f"SIGKILL    {worker.name} (pid {pid}, {owned} partitions) {at}")
        self._progress.look(now=True)
        worker.start()
        worker.look()
        self._progress.say(f"restart    {worker.name} (pid {worker.pid}) on the same data folder")
        return worker


class BrokerAway:
    """One broker of three: SIGKILL at a quarter of the results, a new process after BROKER_AWAY_S."""

    def __init__(self, kafka: OwnKafka, system: System, tally: Tally, progress: Progress) -> None:
        self._kafka = kafka
        self._system = system
        self._topic = system.settings.topic(PAYMENTS)
        self._tally = tally
        self._progress = progress
        self._victim: KafkaPart | None = None
        self._killed_at = self._restarted_at = self._next_look = 0.0
        self._results = 0
        self._led_by_others = self._back = False

    def look(self) -> None:
        """Do what is due now; never waits long."""
        now = time.monotonic()
        if self._victim is None:
            if self._tally.results >= self._tally.events // 4:
                self._kill()
        elif not self._back and now >= self._next_look:
            self._next_look = now + ASK_EVERY_S
            self._see(self._victim, now)

    def wait_until_it_is_back(self) -> int:
        """The SIGKILLs survived, 0 or 1; raises ShowcaseFailed where it does not come back."""
        limit = time.monotonic() + BACK_WITHIN_S
        while self._victim is not None and not self._back:
            self._system.watch()
            if time.monotonic() > limit:
                text = f"{self._victim.name} is not back after {BACK_WITHIN_S:.0f} s"
                raise ShowcaseFailed(f"{text} (log: {self._victim.node.log_file})")
            self._see(self._victim, time.monotonic())
            time.sleep(ASK_EVERY_S)
        return int(self._back)

    def _kill(self) -> None:
        """The broker that leads most of the payments."""
        leaders = self._kafka.leaders(self._topic)
        self._victim = max(self._kafka.brokers, key=lambda broker: leaders.count(broker.number))
        leads = f"leads {leaders.count(self._victim.number)} of {len(leaders)} partitions of {self._topic}"
        pid = self._victim.kill()
        self._killed_at, self._results = time.monotonic(), self._tally.results
        at = f"at {self._results:,} of {self._tally.events:,} results"
        self._progress.say(f"SIGKILL    {self._victim.name} (pid {pid}, {leads}) {at}")
        self._progress.look(now=True)

    def _see(self, victim: KafkaPart, now: float) -> None:
        if self._restarted_at:
            if self._kafka.in_sync() == len(self._kafka.brokers):
                self._back = True
                took = f"{time.monotonic() - self._restarted_at:.1f} s"
                self._progress.say(f"in sync    {victim.name} holds every record again after {took}")
            return
        if not self._led_by_others:
            leaders = self._kafka.leaders(self._topic)
            self._led_by_others = bool(leaders) and not {-1, victim.number} & set(leaders)
            if self._led_by_others:
                took = f"{time.monotonic() - self._killed_at:.1f} s"
                self._progress.say(f"leaders    all partitions are led by the other brokers after {took}")
        if now - self._killed_at >= BROKER_AWAY_S:
            victim.start_again()
            self._restarted_at = time.monotonic()
            came = f"{self._tally.results - self._results:,} results came without it"
            pid = victim.node.pid
            self._progress.say(f"restart    {victim.name} (pid {pid}) on the same data folder; {came}")
