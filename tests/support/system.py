"""A whole system for one test: gateway simulator, workers, intake, a reader of what was committed.

Waiting is always for something (a record, a log line, the end of a process), never for a time to pass.
"""

from __future__ import annotations

import os
import random
import shutil
import signal
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable
from itertools import pairwise
from pathlib import Path
from types import TracebackType
from typing import Any

import orjson
from support.producers import idempotent_producer
from support.topics import wait_settled
from support.until import WAIT_S

from broker.ports import stable_ports
from faust_exactly_once.cluster import Cluster
from faust_exactly_once.counters import read
from processes import ROOT
from processes.heard import HeardProcess
from processes.simulator import Simulator
from streamsocial_billing.audit.disk import tables_on_disk
from streamsocial_billing.audit.outcomes import breakdown
from streamsocial_billing.audit.report import AuditReport
from streamsocial_billing.audit.run import run_audit
from streamsocial_billing.domain.events import PaymentEvent
from streamsocial_billing.domain.payment_identity import gateway_key
from streamsocial_billing.intake.producer import PaymentProducer
from streamsocial_billing.kafka.committed import CommittedLog
from streamsocial_billing.kafka.topics import create_topics
from streamsocial_billing.settings import DEAD_LETTERS, PAYMENTS, RESULTS, SOURCES, Settings

SESSION_TIMEOUT_S = 2
GATEWAY_DEADLINE_S = 1.2
CALM = {"BILLING_SESSION_TIMEOUT_S": 10, "BILLING_GATEWAY_DEADLINE_S": 8}
"""For systems in which nobody dies: a machine that stalls for seconds moves no task, doubts no call."""
STEADY = {"BILLING_SESSION_TIMEOUT_S": 6, "BILLING_GATEWAY_DEADLINE_S": 5}
"""For systems in which somebody dies and no call may be doubted: the dead are missed sooner than in CALM."""
STOPS_WITHIN_S = 90.0
"""Far above what a worker takes; a test of that time measures it."""

Source = tuple[int, int]
"""Partition, offset of an event on `payments`."""
Record = tuple[bytes | None, bytes | None, int]
"""Key, value, partition."""


class Payments:
    """Makes payments from a seed: some users are hot, one in ten is sent again, one in ten is declined."""

    def __init__(self, seed: int, users: int = 60, resent: float = 0.1, name: str = "pay") -> None:
        self._name = name
        self.random = random.Random(seed)
        self._users = users
        self._resent = resent
        self._number = 0
        self.made: list[PaymentEvent] = []

    def take(self, count: int) -> list[PaymentEvent]:
        """The next `count` events, re-sent ones among them."""
        return [self._one() for _ in range(count)]

    def _one(self) -> PaymentEvent:
        if self.made and self.random.random() < self._resent:
            return self.random.choice(self.made)
        self._number += 1
        hot = self.random.random() < 0.4
        user = self.random.randrange(4) if hot else self.random.randrange(4, self._users)
        declined = self.random.random() < 0.1
        event = payment(
            f"user-{user}", f"{self._name}-{self._number}",
            amount_minor=self.random.randrange(100, 10_000),
            currency=self.random.choice(("EUR", "USD", "JPY")),
            payment_method="pm_card_declined" if declined else "pm_card_visa",
        )  # fmt: skip
        self.made.append(event)
        return event


def payment(user_id: str, payment_id: str, **fields: Any) -> PaymentEvent:
    """A payment with defaults for what the test does not care about."""
    filled = {
        "product": "subscription", "amount_minor": 999, "currency": "EUR", "payment_method": "pm_card_visa",
    } | fields | {"user_id": user_id, "payment_id": payment_id}  # fmt: skip
    return PaymentEvent.from_mapping(filled, now_ms=int(time.time() * 1000), default_gateway="simulated")


class WorkerProcess(HeardProcess):
    """One worker over its own data folder; what a test waits for comes, or fails it with the log's end.

    `keeps_port`: a further start takes the web port of the one before, as an operator's does.
    """

    environment: dict[str, str]

    def __init__(self, name: str, folder: Path, environment: dict[str, str]) -> None:
        super().__init__(name, [], folder / f"{name}.log", environment, keeps=None)
        self.datadir = folder / name
        self.web_port = 0
        self.keeps_port = False
        self.options: tuple[str, ...] = ("--loglevel=info",)  # of everything: libraries' lines are waited for
        self.program: tuple[str, ...] = (str(Path(sys.executable).with_name("streamsocial-billing")),)

    def start(self, crash_at: tuple[str, int] | None = None, sent: signal.Signals = signal.SIGKILL) -> None:
        """Start it; with `crash_at` (point, N) it signals itself when it reaches the point the N-th time."""
        command = list(self.program)
        if crash_at is not None:
            # -P: modules beside the script must not hide those of the standard library
            script = str(ROOT / "tests/support/crashing_worker.py")
            command = [sys.executable, "-P", script, sent.name, crash_at[0], str(crash_at[1])]
        if not (self.keeps_port and self.web_port):
            self.web_port = free_port()
        command += [f"--datadir={self.datadir}", "worker", f"--web-port={self.web_port}", *self.options]
        self.command = command
        self.launch()

    def wait_for_line(self, pattern: str, within_s: float = WAIT_S) -> str:
        """The first line since the start that matches; raises AssertionError with the log's end."""
        found = self.wait_line(pattern, within_s)
        how = "never said" if self.running else "ended without"
        assert found is not None, f"{self.name} {how} {pattern!r}: {self.tail()}"
        return found

    def running_tasks(self) -> list[str]:
        """The log lines, since the start, of tasks that began to run."""
        return self.lines(r"task \d+ runs")

    def wait_ready(self, within_s: float = WAIT_S) -> None:
        """Return when a task of this worker runs."""
        self.wait_for_line(r"task \d+ runs", within_s)

    def wait_killed(self, within_s: float = WAIT_S) -> None:
        """Return when the process has died by SIGKILL; anything else is a failure."""
        assert -signal.SIGKILL == self.wait_ended(within_s), self.tail()

    def wait_ended(self, within_s: float = WAIT_S) -> int:
        """Its exit code (negative: the signal), as soon as it has ended by itself."""
        assert self.wait(within_s), f"{self.name} did not end by itself: {self.tail()}"
        assert self.code is not None
        return self.code

    def kill(self) -> int:
        """SIGKILL of one that lives; returns the pid that it had."""
        pid = super().kill()
        assert -signal.SIGKILL == self.code, self.tail()
        return pid

    def stop(self) -> int:
        """Ask it to stop; its exit code."""
        assert self.terminate(STOPS_WITHIN_S), f"{self.name} did not stop: {self.tail()}"
        assert self.code is not None
        return self.code

    def end(self) -> None:
        """End it whatever it does, at the end of a test."""
        super().kill()

    def forget_local_state(self) -> None:
        """Delete its data folder."""
        assert not self.running
        shutil.rmtree(self.datadir)

    def tail(self, lines: int = 25) -> str:
        """The last lines of its log, from a new line on."""
        return "\n" + super().tail(lines)


class TopicReader:
    """Reads committed records of one topic from its beginning, in a thread; `wait` awaits what they say.

    `sources` are the events (partition, offset) that the records so far answer; `news` is told of each
    record, shared by readers whose records are awaited together.
    """

    def __init__(
        self, settings: Settings, topic: str, news: threading.Condition,
        source_of: Callable[[Any], Source | None],
    ) -> None:  # fmt: skip
        self.records: list[Any] = []
        self.sources: set[Source] = set()
        self._source_of = source_of
        self._news = news
        self._stop = False
        self._failure: BaseException | None = None
        self._thread = threading.Thread(target=self._run, args=(settings, topic), daemon=True)
        self._thread.start()

    def wait(self, enough: Callable[[], bool], within_s: float = WAIT_S) -> bool:
        """True as soon as `enough` holds, asked after each message; False after `within_s`."""
        with self._news:
            return self._news.wait_for(lambda: self._failure is not None or enough(), within_s)

    def close(self) -> None:
        """End the thread; raises what ended it before."""
        self._stop = True
        self._thread.join(60)
        if self._failure is not None:
            raise self._failure

    def _run(self, settings: Settings, topic: str) -> None:
        try:
            for message in CommittedLog(settings).follow(topic):
                if self._stop:
                    return
                if message is not None:
                    with self._news:
                        self.records.append(message)
                        source = self._source_of(message)
                        if source is not None:
                            self.sources.add(source)
                        self._news.notify_all()
        except BaseException as exc:
            self._failure = exc
            with self._news:
                self._news.notify_all()


class System:
    """Everything that a payment meets, on names of its own; the end of the `with` ends every process."""

    intake_patience_s = 100.0
    """A broker that has just started loads its coordinators, on a busy machine for many seconds."""

    def __init__(
        self, bootstrap: str, folder: Path, name: str, *, workers: int = 1, partitions: int = 4,
        **environment: object,
    ) -> None:  # fmt: skip
        self.folder = folder
        self.gateway = Simulator(folder / "ledger.sqlite", port=free_port())
        self.gateway.start()
        variables = {
            "BILLING_APP_ID": name, "BILLING_TOPIC_PREFIX": f"{name}-", "BILLING_BROKER": f"kafka://{bootstrap}",
            "BILLING_PARTITIONS": partitions, "BILLING_GATEWAY_URL": self.gateway.url,
            "BILLING_SESSION_TIMEOUT_S": SESSION_TIMEOUT_S, "BILLING_GATEWAY_DEADLINE_S": GATEWAY_DEADLINE_S,
        } | environment  # fmt: skip
        chosen = {key: str(value) for key, value in variables.items()}
        self.settings = Settings.from_environment(chosen)
        inherited = {key: value for key, value in os.environ.items() if not key.startswith("BILLING_")}
        env = inherited | chosen | {"PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"}
        self.workers = [WorkerProcess(f"w{number + 1}", folder, env) for number in range(workers)]
        self.sent = 0

    def __enter__(self) -> System:
        try:
            create_topics(self.settings, Cluster(self.settings.client_config(), 60))
            self._intake = PaymentProducer(
                self.settings, self.folder / "intake", patience_s=self.intake_patience_s
            )  # fmt: skip
            news, name = threading.Condition(), self.settings.topic
            self.results = TopicReader(self.settings, name(RESULTS), news, self._answers)
            self.dead_letters = TopicReader(self.settings, name(DEAD_LETTERS), news, lambda _: None)
        except BaseException:
            self.gateway.stop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for worker in self.workers:
            worker.end()
        self._intake.close()
        try:
            self.results.close()
            self.dead_letters.close()
        finally:
            if self.gateway.running:
                self.gateway.stop()

    @property
    def worker(self) -> WorkerProcess:
        """The only worker, or the first."""
        return self.workers[0]

    def start(self) -> None:
        """Start every worker; return when each runs a task."""
        for worker in self.workers:
            worker.start()
        for worker in self.workers:
            worker.wait_ready()

    def submit(self, events: Iterable[PaymentEvent]) -> None:
        """Append events in transactions, as `submit` does."""
        self.sent += self._intake.submit(list(events))

    def append(self, records: Iterable[Record]) -> None:
        """Append raw records to `payments`, outside any intake: (key, value, partition)."""
        producer = idempotent_producer(self.settings.bootstrap, {"message.max.bytes": 2_000_000})
        topic = self.settings.topic(PAYMENTS)
        for key, value, partition in records:
            producer.produce(topic, value, key=key, partition=partition, on_delivery=_delivered)
            self.sent += 1
        assert 0 == producer.flush(60)
        producer.close()

    def wait_answered(self, count: int | None = None, within_s: float = WAIT_S) -> None:
        """Return when so many events (default: all) have a first result or a dead letter."""
        wanted = self.sent if count is None else count
        if not self.results.wait(lambda: self.answered() >= wanted, within_s):
            logs = "".join(f"\n--- {worker.name}{worker.tail()}" for worker in self.workers)
            raise AssertionError(f"{self.answered()} of {wanted} events answered after {within_s} s{logs}")

    def answered(self) -> int:
        """How many events have an answer."""
        return len(self.results.sources) + len(self.dead_letters.records)

    def all_results(self) -> list[dict[str, Any]]:
        """The results so far."""
        return [_json(message) for message in list(self.results.records)]

    def _answers(self, message: Any) -> Source | None:
        """The event that a result answers, if it is one's first; called by the reader, in its thread."""
        return _answered_event(message)

    def results_of(self, payment_id: str) -> list[dict[str, Any]]:
        """The results of a payment so far."""
        return [one for one in self.all_results() if one["payment_id"] == payment_id]

    def calls(self, event: PaymentEvent) -> int:
        """How often the gateway was posted this payment's key."""
        calls = self.gateway.get(f"/_stats?key={gateway_key(event)}")["calls"]
        assert isinstance(calls, int)
        return calls

    def lag(self) -> dict[tuple[str, int], int]:
        """Per partition of the sources the offsets between the committed one and the last stable one."""
        log, settings = CommittedLog(self.settings), self.settings
        places = [(settings.topic(t), p) for t in SOURCES for p in range(settings.partitions)]
        return log.lag(self.settings.app_id, log.ends(places))

    def stop_workers(self) -> None:
        """Stop the running workers in order."""
        for worker in self.workers:
            if worker.running:
                assert 0 == worker.stop(), worker.tail()

    def check(self) -> AuditReport:
        """Everything is answered; then books and disk agree, the workers being stopped."""
        self.wait_answered()
        report = self.audit()
        self.read_all()
        self.check_order()
        self.stop_workers()
        self.check_disk()
        return report

    def audit(self) -> AuditReport:
        """Lost 0, double 0, tables = fold of the results = ledger."""
        report = run_audit(self.settings, wait_s=90)  # a breaker pauses up to 30 s
        assert () == report.problems, "\n".join(map(str, report.problems))
        assert report.ok and report.settled, report
        assert self.sent == report.events
        self.check_counters(report)
        return report

    def read_all(self) -> None:
        """Return once every result that is committed by now has been read: what settles others comes late."""
        log, topic = CommittedLog(self.settings), self.settings.topic(RESULTS)
        places = [(topic, p) for p in range(self.settings.partitions)]
        count = sum(1 for _ in log.read(log.ends(places)))
        read = self.results.wait(lambda: len(self.results.records) >= count)
        assert read, f"{len(self.results.records)} of {count} results read"

    def check_counters(self, report: AuditReport) -> None:
        """The tasks' own counters: every event came in once, was answered once, as the audit says."""
        log, topic = CommittedLog(self.settings), self.settings.changelog("task_counters")
        wait_settled(self.settings, topic)  # its commits may be seen later than those of the results
        last = {}
        for message in log.read(log.ends([(topic, p) for p in range(self.settings.partitions)])):
            last[message.partition()] = read(message.value())
        counted: Counter[str] = sum(map(Counter, last.values()), Counter())
        payments = self.settings.topic(PAYMENTS)
        answered = counted[f"first_results/{payments}"] + counted[f"dead_letters/{payments}"]
        assert (self.sent, self.sent) == (counted[f"events/{payments}"], answered)
        found = breakdown(counted, payments).as_json()
        assert (self.sent, 0) == (found.pop("handled"), found.pop("uncounted"))
        assert found == {name: report.outcomes[name] for name in found}

    def check_order(self) -> None:
        """Each payment was answered in the order of its events (results of one user lie in one partition)."""
        last: dict[str, list[int]] = {}
        for one in self.all_results():
            if not one["resolves"] and one["source"] is not None:  # none: the gateway made it
                last.setdefault(one["user_id"], []).append(one["source"]["offset"])
        wrong = {user: offsets for user, offsets in last.items() if any(a >= b for a, b in pairwise(offsets))}
        assert {} == wrong, wrong

    def check_disk(self) -> None:
        """RocksDB = fold of the committed changelog; the workers must not run."""
        datadirs = [worker.datadir for worker in self.workers if worker.datadir.exists()]
        problems = [str(one) for one in tables_on_disk(datadirs, self.settings)]
        assert [] == problems


class Stream:
    """Submits payments in a thread, a few at a time, until it is left or has sent all; keeps workers busy."""

    def __init__(self, system: System, payments: Payments, *, chunk: int, ahead: int, most: int) -> None:
        self._system = system
        self._payments = payments
        self._chunk = chunk
        self._ahead = ahead
        self._most = most
        self._stop = False
        self._failure: BaseException | None = None
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Stream:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop = True
        self._thread.join(WAIT_S)
        if kind is None and self._failure is not None:
            raise self._failure
        assert kind is not None or not self._thread.is_alive(), "it still submits"

    def _run(self) -> None:
        """Stay `ahead` events in front of the answers, so that a kill always hits work under way."""
        system = self._system
        try:
            while not self._stop and system.sent < self._most:
                system.results.wait(lambda: self._stop or system.sent - system.answered() < self._ahead, 1.0)
                if system.sent - system.answered() < self._ahead:
                    system.submit(self._payments.take(self._chunk))
        except BaseException as exc:
            self._failure = exc


def free_port() -> int:
    """A port that was free a moment ago, of those that no connection and no other lane takes by chance."""
    return stable_ports(1)[0]


def statuses(results: Iterable[dict[str, Any]]) -> Counter[tuple[str, bool, bool]]:
    """Counts by (status, replayed, resolves)."""
    return Counter((one["status"], one["replayed"], one["resolves"]) for one in results)


def _json(message: Any) -> dict[str, Any]:
    value: dict[str, Any] = orjson.loads(message.value())
    return value


def _answered_event(message: Any) -> Source | None:
    result = _json(message)
    if result["resolves"] or result["source"] is None:  # none: the gateway made it
        return None
    return result["source"]["partition"], result["source"]["offset"]


def _delivered(error: Any, _: Any) -> None:
    assert error is None, error
