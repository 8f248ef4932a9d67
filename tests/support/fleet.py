"""Real workers on three real brokers under a steady load, the books in the end, and the run in figures."""

from __future__ import annotations

import os
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from types import TracebackType
from typing import Any

import orjson
from confluent_kafka import KafkaException
from support.cluster_load import REFUSED, UNKNOWN, UNREACHED, WAYS, Load
from support.system import Source, System, WorkerProcess
from support.topics import wait_settled
from support.until import until
from support.watching import Watcher, count_lines, for_an_operator

from broker.clients import fresh_client
from broker.cluster import BaseCluster, Node
from streamsocial_billing.audit.readers import read_ledger
from streamsocial_billing.kafka.committed import CommittedLog
from streamsocial_billing.kafka.transactions import PATIENCE_S
from streamsocial_billing.settings import PAYMENTS

SESSION_TIMEOUT_S = 6
GATEWAY_DEADLINE_S = 4
BROKER_STARTS_WITHIN_S = 180.0
"""With much other work on the machine a broker took a minute for its start."""
FIGURES_FILE = "CLUSTER_FIGURES"
"""The variable that names the file to which each run appends its figures; else they lie beside its logs."""


@dataclass(frozen=True, slots=True)
class Figures:
    """A run in figures; times in seconds.

    pause_s          by partition: the longest time between two results that a reader of committed ones saw
    slowest_s        by way: the slowest call that handed payments in; `submit` with the start of its process
    refused          calls that were answered with a refusal: way, seconds, text
    unknown          calls after which it may be on the log; it was sent again
    unreached        calls for which no worker listened there (one that was ended on purpose)
    last_answer_s    from the last fault to the last answer, 0: all were answered before
    blocked          by worker and reason: how often a task was seen blocked, by what `/ready` said
    for_an_operator  log lines by which a worker says that somebody has to act
    exits            workers that ended by themselves
    log_lines        by worker, without the line of each payment's outcome
    busiest_second   the most such lines of any worker in one second
    broker_starts_s  how long each start of a broker took, which tells how busy the machine was
    load             of the machine at the end, the mean number of runnable processes in five minutes
    """

    name: str
    payments: int
    events: int
    results: int
    pause_s: dict[int, float]
    slowest_s: dict[str, float]
    calls: dict[str, int]
    refused: list[tuple[str, float, str]]
    unknown: int
    unreached: int
    last_answer_s: float
    blocked: dict[str, int]
    for_an_operator: list[str]
    exits: list[str]
    log_lines: dict[str, int]
    busiest_second: int
    most_lines: list[tuple[str, int]]
    restarts: dict[str, int]
    broker_starts_s: list[float]
    at: str
    load: float

    @property
    def longest_pause_s(self) -> float:
        """Over all partitions."""
        return max(self.pause_s.values(), default=0.0)


class ClusterFleet(System):
    """Gateway, workers, load over a cluster; the workers make the topics, at their first start, at once.

    They log as in production, each keeps its web port. Use it in a `with`; then `load()`, faults inside
    of it, `settle()` with the moment of the last fault, `check()`, `figures()`.
    """

    intake_patience_s = PATIENCE_S
    """How long a call of the library takes is a figure of the run."""

    def __init__(
        self, cluster: BaseCluster, folder: Path, name: str, *, workers: int = 2, partitions: int = 4,
        session_timeout_s: int = SESSION_TIMEOUT_S, **environment: object,
    ) -> None:  # fmt: skip
        own = {
            "BILLING_BROKER": cluster.url, "BILLING_SESSION_TIMEOUT_S": session_timeout_s,
            "BILLING_GATEWAY_DEADLINE_S": GATEWAY_DEADLINE_S,
        } | environment  # fmt: skip
        self.cluster = cluster
        self.name = name
        self.arrivals: defaultdict[int, list[float]] = defaultdict(list)
        self.restarts: Counter[str] = Counter()
        self.broker_starts_s: list[float] = []
        self.sent_by: Load | None = None
        self.last_fault_at = self.settled_at = 0.0
        folder.mkdir(parents=True, exist_ok=True)
        super().__init__(cluster.bootstrap, folder, name, workers=workers, partitions=partitions, **own)
        for worker in self.workers:
            worker.keeps_port = True
            worker.options = ()
        self.watcher = Watcher(self.workers)

    def __enter__(self) -> ClusterFleet:
        with ExitStack() as undo:
            undo.callback(self.gateway.stop)
            for worker in self.workers:
                undo.callback(worker.end)
                worker.start()
            for worker in self.workers:
                worker.wait_for_line("ready: ", 240)
            undo.pop_all()
        try:
            super().__enter__()
        except BaseException:
            for worker in self.workers:
                worker.end()
            raise
        self.watcher.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.watcher.__exit__(kind, error, trace)
        super().__exit__(kind, error, trace)

    @contextmanager
    def load(self, seed: int = 0, *, pause_s: float = 0.1, ways: Sequence[str] = WAYS) -> Iterator[Load]:
        """Payments come in until the end of the `with`, which returns once each is accepted."""
        environment = self.workers[0].environment
        with Load(
            self.submit, self.workers, self.folder / "client", environment, seed, pause_s=pause_s, ways=ways
        ) as load:
            self.sent_by = load
            yield load

    @contextmanager
    def ended_on_purpose(self, worker: WorkerProcess) -> Iterator[None]:
        """Nobody starts it again meanwhile; at the end of the `with` it is started."""
        with self.watcher.lock:
            self.watcher.down.add(worker.name)
        try:
            yield
        finally:
            with self.watcher.lock:
                if not worker.running:
                    worker.start()
                    self.restarts[worker.name] += 1
                self.watcher.down.discard(worker.name)

    def start_broker(self, node: Node, within_s: float = BROKER_STARTS_WITHIN_S) -> None:
        """Return once it answers; how long that took says how busy the machine was."""
        began = time.monotonic()
        node.start(within_s)
        self.broker_starts_s.append(round(time.monotonic() - began, 1))

    def settle(self, last_fault_at: float, within_s: float) -> float:
        """Return once all on `payments` is answered; seconds from the last fault to the last answer."""
        self.last_fault_at = last_fault_at

        def left_s() -> float:
            return max(1.0, last_fault_at + within_s - time.monotonic())

        # an acknowledged transaction may not be readable yet: its markers are still being written
        until(lambda: not self.unanswered(), "a result for each accepted payment", left_s())
        self.sent = self.events_on_the_log()
        self.wait_answered(within_s=left_s())
        self.settled_at = time.monotonic()
        last = max((times[-1] for times in self.arrivals.values()), default=0.0)
        return max(0.0, last - last_fault_at)

    def stop_workers(self) -> None:
        """Stop the running workers in order."""
        with self.watcher.lock:
            self.watcher.down.update(worker.name for worker in self.workers)
        super().stop_workers()

    def events_on_the_log(self) -> int:
        """How many committed events `payments` has now."""
        log, topic = CommittedLog(self.settings), self.settings.topic(PAYMENTS)
        wait_settled(self.settings, topic)
        places = [(topic, partition) for partition in range(self.settings.partitions)]
        return sum(1 for _ in log.read(log.ends(places)))

    def unanswered(self) -> set[str]:
        """Accepted payments without a first result so far."""
        accepted = self.sent_by.accepted if self.sent_by is not None else set()
        return accepted - self._first_results().keys()

    def check_every_payment(self) -> None:
        """Each accepted payment has one first result, and the gateway's own list has one charge for it."""
        assert self.sent_by is not None
        accepted = self.sent_by.accepted
        first = self._first_results()
        lost, twice = accepted - first.keys(), {one for one, count in first.items() if count > 1}
        assert (set(), set()) == (lost, twice), f"{len(lost)} lost, {len(twice)} answered twice"
        charges, _ = read_ledger(self.gateway.url, 1000)
        at_the_gateway = Counter(one.payment.partition("/")[2] for one in charges)
        missing = accepted - at_the_gateway.keys()
        repeated = {one for one, count in at_the_gateway.items() if count > 1}
        unknown = at_the_gateway.keys() - first.keys()
        found = f"{len(missing)} not charged, {len(repeated)} charged twice, {len(unknown)} not in the books"
        assert (set(), set(), set()) == (missing, repeated, unknown), found

    def _first_results(self) -> Counter[str]:
        return Counter(
            one["payment_id"] for one in self.all_results() if not one["replayed"] and not one["resolves"]
        )

    def figures(self) -> Figures:
        """What the run was like; printed, and kept as a line of JSON."""
        load = self.sent_by
        assert load is not None
        logs = {worker.name: count_lines(worker.log_file) for worker in self.workers}
        told = [f"{w.name}: {line}" for w in self.workers for line in for_an_operator(w.log_file)]
        blocked = Counter(f"{one.worker}: {one.why}" for one in self.watcher.blocked())
        ways = sorted({call.way for call in load.calls})
        last = max((times[-1] for times in self.arrivals.values()), default=0.0)
        found = Figures(
            self.name, len(load.accepted), self.sent, len(self.results.records), self.pauses(),
            {way: round(load.slowest(way), 2) for way in ways}, dict(Counter(one.way for one in load.calls)),
            [(one.way, round(one.took, 1), one.text) for one in load.of(REFUSED)],
            len(load.of(UNKNOWN)), len(load.of(UNREACHED)), round(max(0.0, last - self.last_fault_at), 2),
            dict(blocked), told, self.watcher.exits, {name: count.lines for name, count in logs.items()},
            max(count.busiest_second for count in logs.values()),
            sorted((most for count in logs.values() for most in count.most), key=lambda one: -one[1])[:5],
            dict(self.restarts), self.broker_starts_s,
            time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()), os.getloadavg()[1],
        )  # fmt: skip
        self._keep(found)
        return found

    def pauses(self) -> dict[int, float]:
        """By partition, the longest time between two results, from the load's begin on."""
        load = self.sent_by
        began = load.began_at if load is not None else 0.0
        found = {}
        for partition, times in sorted(self.arrivals.items()):
            seen = [began, *(at for at in times if at >= began)]
            found[partition] = round(max((after - at for at, after in pairwise(seen)), default=0.0), 2)
        return found

    def wait_in_sync(self, within_s: float = 120) -> None:
        """Return when all replicas of every partition are in sync, as an operator does between two steps."""
        until(lambda: not self._behind(), "all replicas in sync", within_s)

    def _behind(self) -> list[str]:
        client = fresh_client(self.cluster.bootstrap)
        try:
            topics = client.list_topics(timeout=5).topics
        except KafkaException as error:
            return [str(error)]
        return [
            f"{name}-{number}" for name, topic in topics.items() for number, one in topic.partitions.items()
            if set(one.isrs) != set(one.replicas) or one.leader == -1
        ]  # fmt: skip

    def _answers(self, message: Any) -> Source | None:
        source = super()._answers(message)
        if source is not None:
            self.arrivals[source[0]].append(time.monotonic())
        return source

    def _keep(self, found: Figures) -> None:
        line = orjson.dumps(asdict(found), option=orjson.OPT_NON_STR_KEYS)
        file = Path(os.environ.get(FIGURES_FILE) or self.folder / "figures.jsonl")
        with _writing, file.open("ab") as out:
            out.write(line + b"\n")
        print(line.decode())


_writing = threading.Lock()
