"""The live audit of real workers on a real Kafka, amid deaths."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import orjson
from confluent_kafka import Producer
from prometheus_client.parser import text_string_to_metric_families
from support.system import CALM, Payments, Stream, System, WorkerProcess, payment
from support.topics import wait_settled
from support.web_client import get

from streamsocial_billing.audit.report import AuditReport
from streamsocial_billing.kafka.committed import CommittedLog

PARTITIONS = 4


def wait_until(true: Callable[[], bool], within_s: float = 120) -> None:
    """Ask again and again; a refused connection counts as no."""
    deadline = time.monotonic() + within_s
    while time.monotonic() < deadline:
        try:
            if true():
                return
        except OSError:
            pass
        time.sleep(0.1)
    raise AssertionError("it did not become true")


def audit_of(worker: WorkerProcess, handled: int, *, settled: bool = False) -> Any:
    """What `/audit` of all workers says, once it has every task, its rows, so many events.

    `settled`: and once no payment is open.
    """
    found: list[Any] = []

    def is_complete() -> bool:
        found.append(get(worker.web_port, "/audit?workers=all").json())
        newest = found[-1]
        complete = list(range(PARTITIONS)) == newest["here"] and bool(newest["rows_at"])
        through = all(task["rows_at"] >= began for task in newest["tasks"])
        done = handled == newest["payments"]["handled"] and not (settled and newest["open"]["counted"])
        return bool(complete and through and done)

    began = time.time() * 1000
    wait_until(is_complete)
    return found[-1]


def figures(audit: Any) -> Any:
    """What does not depend on the moment of the question."""
    return {name: audit[name] for name in ("ok", "payments", "open", "money", "breaks")}


def agree(audit: Any, report: AuditReport, system: System) -> None:
    """The same sums as the audit of Kafka, tables, ledger."""
    told = {currency: sum_["charged_minor"] for currency, sum_ in audit["money"].items()}

    def moved() -> Counter[str]:
        found: Counter[str] = Counter()
        for one in system.all_results():
            if one["status"] == "succeeded" and not one["replayed"]:
                found[one["currency"]] += one["amount_minor"]
        return found

    system.results.wait(lambda: told == moved())
    first = [one for one in system.all_results() if not one["resolves"]]
    assert [] == audit["breaks"]
    expected = {
        "handled": report.events, "answered": len(first), "dead_letters": report.events - len(first),
        "lost": 0, "double": 0,
    }  # fmt: skip
    assert expected == audit["payments"]
    assert told == moved()


def test_after_a_sigkill_the_survivor_s_audit_agrees_with_the_books(
    broker: str, tmp_path: Path, unique_name: str
) -> None:
    """One of two workers dies amid a load, with bad input in it; then all local state is deleted."""
    with System(broker, tmp_path, unique_name, workers=2, partitions=PARTITIONS) as system:
        system.start()
        system.append([(b"user-1", b"no json", 0), (None, b"{}", 1), (b"user-1", None, 2)])
        with Stream(system, Payments(seed=7), chunk=40, ahead=200, most=1500):
            system.results.wait(lambda: system.answered() > 400)
            system.workers[1].kill()
        system.wait_answered()
        survivors = audit_of(system.worker, system.sent, settled=True)
        report = system.audit()
        agree(survivors, report, system)

        system.worker.kill()
        for worker in system.workers:
            worker.forget_local_state()
        system.worker.start()
        system.worker.wait_ready()
        assert figures(survivors) == figures(audit_of(system.worker, system.sent))


def test_an_open_payment_is_open_on_the_page_until_it_is_settled(
    broker: str, tmp_path: Path, unique_name: str
) -> None:
    """A gateway that is away leaves it unknown; when it is back, a trigger settles it; the sums hold."""
    with System(broker, tmp_path, unique_name, partitions=PARTITIONS) as system:
        system.start()
        system.gateway.stop()
        system.submit([payment("u1", "p1", amount_minor=700), payment("u2", "p1", amount_minor=5)])
        system.wait_answered()
        away = audit_of(system.worker, 2)
        assert ({"counted": 2, "unknown": 2, "parked": 0}, {}) == (away["open"], away["money"])
        system.gateway.start()
        wait_until(lambda: 0 == get(system.worker.web_port, "/audit").json()["open"]["counted"])
        back = audit_of(system.worker, 2)
        assert ({"counted": 0, "unknown": 0, "parked": 0}, []) == (back["open"], back["breaks"])
        assert {"EUR": {"charged_minor": 705, "refunded_minor": 0, "exponent": 2}} == back["money"]
        assert back["events"][system.settings.topic("payments-retry")] >= 2


def test_a_record_lost_from_a_table_turns_the_page_the_metrics_the_log_red(
    broker: str, tmp_path: Path, unique_name: str
) -> None:
    """A changelog that somebody has written into: the money in the rows is not the money of the results."""
    with System(broker, tmp_path, unique_name, partitions=PARTITIONS, **CALM) as system:
        system.start()
        system.submit([payment("u1", "p1", amount_minor=700)])
        system.wait_answered()
        assert [] == audit_of(system.worker, 1)["breaks"]
        assert 0 == system.worker.stop()
        forge(system, "charges", "u1")
        system.worker.forget_local_state()
        system.worker.start()
        system.worker.wait_ready()

        (found,) = audit_of(system.worker, 1)["breaks"]
        del found["partition"]
        assert {"invariant": "charged", "of": "EUR", "expected": 700, "actual": 699} == found
        system.worker.wait_for_line(r"live audit: task \d: charged EUR: 700 expected, 699 found")
        assert 1 == series(system.worker, "billing_audit_breaks", invariant="charged")
        assert 0 == series(system.worker, "billing_audit_breaks", invariant="answered")


def forge(system: System, table: str, key: str) -> None:
    """Write a row with one minor unit less into a changelog."""
    topic = system.settings.changelog(table)
    wait_settled(system.settings, topic)
    log = CommittedLog(system.settings)
    places = log.ends([(topic, p) for p in range(PARTITIONS)])
    (last,) = [one for one in log.read(places) if one.key() == key.encode()]
    state = orjson.loads(last.value() or b"")
    state["money"]["EUR"]["charged_minor"] -= 1
    producer = Producer(system.settings.client_config() | {"enable.idempotence": True})
    producer.produce(topic, orjson.dumps(state), key, partition=last.partition() or 0)
    assert 0 == producer.flush(60)


def series(worker: WorkerProcess, name: str, **labels: str) -> float:
    """The sum of a metric over the tasks of a worker."""
    text = get(worker.web_port, "/metrics").body.decode()
    return sum(
        sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.name == name and labels.items() <= sample.labels.items()
    )
