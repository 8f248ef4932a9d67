"""The transaction, opened: stops a worker at a point of its commit, shows what lies where, goes on.

The points and their numbers are those of docs/exactly-once.md, "The commit".
"""

from __future__ import annotations

import signal
import sys
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import orjson
from confluent_kafka import Producer
from rich.console import Console
from rich.table import Table

from broker import LocalBroker
from faust_exactly_once import Cluster, partition_of
from lab.guarantees import BY_KEY
from lab.plan import Payment
from lab.run import LEDGER_PAGE, READY_WITHIN_S, LabFailed, as_event
from lab.stage import PARTITIONS, Stage, Worker
from lab.words import euros
from streamsocial_billing.audit.disk import databases, read_copy
from streamsocial_billing.audit.readers import read_ledger
from streamsocial_billing.domain.times import now_ms
from streamsocial_billing.kafka.committed import CommittedLog
from streamsocial_billing.settings import METRICS, PAYMENTS, RESULTS
from torture.segments import OFFSETS, Written, committed_offset, transactional_records

USER: Final = "user-ada"
PAYMENTS_SENT: Final = (
    Payment("gift-1", USER, "gift", 2300, "pm_card_visa"),
    Payment("gift-2", USER, "gift", 2300, "pm_card_visa"),
)
TABLES: Final = ("payments", "charges")
POINT_WITHIN_S: Final = 60.0
ANSWER_WITHIN_S: Final = 20.0
LONG_S: Final = 1700
"""While somebody reads, the session may not time out (Kafka allows 1 800 s), nor the transaction (900 s)."""


@dataclass(frozen=True, slots=True)
class Point:
    """A named point: what is done, what a crash here leaves, what the next start does about it."""

    done: str
    left: str
    then: str


_ABORTED: Final = "aborts it with its fence (InitProducerId) and handles the events again, with the same keys"
POINTS: Final = {
    "before_send": Point(
        "the gateway has charged; step 1, begin, has not come",
        "nothing in Kafka; the charge at the gateway",
        "handles the events again: same call, same key, the gateway gives its stored answer",
    ),
    "between_sends": Point(
        "1 begin, 2 the units' records are sent", "an open transaction, half of its records", _ABORTED
    ),
    "before_offsets": Point(
        "3 changelog records, 4 every delivery is confirmed", "an open transaction, all of its records",
        _ABORTED,
    ),
    "before_commit": Point(
        "5 the source offsets are added", "an open transaction with offsets",
        f"{_ABORTED}; the offsets are aborted, too",
    ),
    "after_commit": Point(
        "6 the transaction is committed", "committed; RocksDB is behind its changelog",
        "tops the databases up from the changelog; the events are not handled again",
    ),
    "after_store": Point(
        "7 RocksDB is written, with the changelog offset it reaches", "committed, stored", "goes on"
    ),
}  # fmt: skip


def opened(out: Path, console: Console, *, crash_at: str | None) -> int:
    """Show one commit: killed at a point and recovered, or point by point; raises LabFailed."""
    more = {} if crash_at else {
        "BILLING_SESSION_TIMEOUT_S": str(LONG_S), "LAB_TRANSACTION_TIMEOUT_MS": "890000",
    }  # fmt: skip
    with LocalBroker(out / "kafka", 0) as kafka:
        with Stage(BY_KEY["ours"], out / "ours", kafka.url, more) as stage:
            worker = stage.workers["w1"]
            worker.launch()
            if worker.wait_line(rf"task {_partition()} runs", READY_WITHIN_S) is None:
                raise LabFailed(f"the worker does not start: {worker.tail()}")
            view = View(stage, kafka.data_dir / "log", console)
            if crash_at:
                _crash(stage, worker, view, console, crash_at)
            else:
                _step(stage, worker, view, console)
            if not worker.terminate(20):
                raise LabFailed("the worker did not stop when asked")
    return 0


def _crash(stage: Stage, worker: Worker, view: View, console: Console, point: str) -> None:
    worker.order("SIGKILL", point)
    _send(stage)
    if not worker.wait(POINT_WITHIN_S):
        raise LabFailed(f"the worker did not come to {point}: {worker.tail()}")
    about = POINTS[point]
    console.rule(f"killed at {point}")
    console.print(f"{about.done}. Left: {about.left}.", highlight=False)
    view.show()
    console.rule("started again")
    console.print(f"The next start {about.then}.", highlight=False)
    worker.launch()
    _wait_answered(stage)
    view.show()


def _step(stage: Stage, worker: Worker, view: View, console: Console) -> None:
    names = list(POINTS)
    worker.order("SIGSTOP", names[0])
    _send(stage)
    for number, point in enumerate(names):
        if worker.wait_line(f"SIGSTOP at {point}", POINT_WITHIN_S) is None:
            raise LabFailed(f"the worker did not come to {point}: {worker.tail()}")
        console.rule(f"{point}: {POINTS[point].done}")
        view.show()
        console.print(f"A crash here leaves: {POINTS[point].left}. The next start {POINTS[point].then}.",
                      highlight=False)  # fmt: skip
        _pause(console)
        if number + 1 < len(names):
            worker.order("SIGSTOP", names[number + 1])
        worker.signal(signal.SIGCONT)
    _wait_answered(stage)
    console.rule("8 the uncommitted state is released: the worker goes on")
    view.show()


def _pause(console: Console) -> None:
    """Wait for Enter where somebody sits there."""
    if sys.stdin.isatty():
        console.input("[dim]Enter: go on[/dim] ")


def _send(stage: Stage) -> None:
    producer = Producer(stage.settings.client_config() | {
        "enable.idempotence": True, "partitioner": "murmur2_random", "log_level": 0, "linger.ms": 50,
    })  # fmt: skip
    at_ms = now_ms()
    for payment in PAYMENTS_SENT:
        producer.produce(
            stage.settings.topic(PAYMENTS), as_event(payment, at_ms), key=payment.user_id.encode()
        )
    if producer.flush(10):
        raise LabFailed("Kafka did not take the payments")


def _wait_answered(stage: Stage) -> None:
    wanted = {one.payment_id for one in PAYMENTS_SENT}
    deadline = time.monotonic() + POINT_WITHIN_S
    for message in CommittedLog(stage.settings).follow(stage.settings.topic(RESULTS)):
        if message is not None:
            wanted.discard(orjson.loads(message.value() or b"{}")["payment_id"])
        if not wanted:
            return
        if time.monotonic() > deadline:
            raise LabFailed(f"no result for {sorted(wanted)} in {POINT_WITHIN_S:.0f} s")


def _partition() -> int:
    return partition_of(USER.encode(), PARTITIONS)


class View:
    """What lies in Kafka, in RocksDB and at the gateway at this moment."""

    def __init__(self, stage: Stage, log: Path, console: Console) -> None:
        self._stage = stage
        self._settings = stage.settings
        self._log = log
        self._console = console

    def show(self) -> None:
        """Print all of it."""
        self._console.print(self._records())
        self._console.print(self._ends())
        self._console.print(self._disk())
        self._console.print(self._gateway())

    def _records(self) -> Table:
        """From the broker's log segments: also what no consumer may see."""
        title = "Kafka: records written in transactions"
        table = Table("topic", "offset", "transaction", "record", title=title)
        names = [self._settings.topic(RESULTS), self._settings.topic(METRICS)]
        names += [self._settings.changelog(name) for name in TABLES]
        for name in names:
            for one in self._of_user(transactional_records(self._log, name)):
                table.add_row(f"{name}-{one.place[1]}", str(one.offset), _state(one), _short(one))
        for one in transactional_records(self._log, OFFSETS):
            said = committed_offset(one)
            if said is not None and said[1:3] == (self._settings.topic(PAYMENTS), _partition()):
                text = f"{said[1]}-{said[2]}: next is {said[3]}"
                table.add_row(OFFSETS, str(one.offset), _state(one), text)
        return table

    def _of_user(self, records: Iterable[Written]) -> list[Written]:
        """The records of the two payments; counters of the task and metrics of others are left out."""
        ids = [one.payment_id.encode() for one in PAYMENTS_SENT]
        found = []
        for one in records:
            text = one.key + (one.value or b"")
            if any(each in text for each in ids) or USER.encode() in text:
                found.append(one)
        return found

    def _ends(self) -> Table:
        """What a read_committed reader may see: everything below the last stable offset."""
        table = Table("partition", "last stable offset", "high watermark", title="Kafka: how far readers get")
        place = self._settings.topic(RESULTS), _partition()
        ends = Cluster(self._settings.client_config(), ANSWER_WITHIN_S).log_ends([place])[place]
        table.add_row(f"{place[0]}-{place[1]}", str(ends.stable), str(ends.high))
        return table

    def _disk(self) -> Table:
        table = Table("table", "reaches changelog offset", "key", "value", title="RocksDB of the worker")
        datadir = self._stage.workers["w1"].datadir
        for name in TABLES:
            for path in databases([datadir], name, _partition()):
                copy = read_copy(path)
                rows = list(copy.content.items()) or [(b"(empty)", b"")]
                for key, value in rows:
                    table.add_row(path.name, str(copy.position), key.decode(), _cut(value))
        return table

    def _gateway(self) -> Table:
        table = Table("charge", "payment", "status", "amount", title="the gateway's own list")
        charges, _ = read_ledger(self._stage.gateway.url, LEDGER_PAGE)
        for one in reversed(charges):
            table.add_row(one.id, one.payment, one.status, euros(one.amount_minor))
        return table


def _state(one: Written) -> str:
    if one.outcome is None:
        return "[yellow]open[/yellow]"
    return {"abort": "[red]aborted[/red]", "commit": "[green]committed[/green]"}[one.outcome]


def _short(one: Written) -> str:
    if one.value is None:
        return f"{one.key.decode(errors='replace')}: deleted"
    return f"{one.key.decode(errors='replace')}: {_cut(one.value)}"


def _cut(value: bytes, most: int = 90) -> str:
    try:
        said = orjson.loads(value)
        kept = {key: said[key] for key in ("payment_id", "status", "amount_minor", "charged") if key in said}
        text = orjson.dumps(kept or said).decode()
    except (ValueError, TypeError, AttributeError):
        text = value.decode(errors="replace")
    return text if len(text) <= most else text[: most - 1] + "…"

