"""The audit reads real topics, a real simulator's ledger; results are printed from the same topics."""

from __future__ import annotations

import io
import re
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson
import pytest
from confluent_kafka import Consumer, Message, Producer, TopicPartition
from support.charge_states import after
from support.stored import stored_payment
from support.system import free_port
from support.topics import committed, make_topics, wait_settled

from processes.loopback import ask
from processes.simulator import Simulator
from streamsocial_billing.audit.run import run_audit
from streamsocial_billing.cli.results import follow_results
from streamsocial_billing.domain.events import PaymentEvent
from streamsocial_billing.domain.payment_identity import gateway_key
from streamsocial_billing.domain.results import charge_result, payment_metric
from streamsocial_billing.intake.submit import submit_lines
from streamsocial_billing.kafka.committed import CommittedLog, KafkaProblem
from streamsocial_billing.settings import DEAD_LETTERS, METRICS, PAYMENTS, RESULTS, Settings

NOW_MS = 1_700_000_000_000


@pytest.fixture
def gateway(tmp_path: Path) -> Iterator[Simulator]:
    """A simulator with an empty ledger."""
    with Simulator(tmp_path / "ledger.sqlite", port=free_port()) as running:
        yield running


@pytest.fixture
def settings(broker: str, unique_name: str, topic_prefix: str, gateway: Simulator) -> Settings:
    """An app of this test alone, with its topics."""
    made = Settings(
        app_id=unique_name,
        broker=f"kafka://{broker}",
        topic_prefix=topic_prefix,
        partitions=2,
        gateway_url=gateway.url,
    )
    make_topics(made)
    return made


class Scribe:
    """Writes what a correct worker would write for each event on `payments`, in one transaction."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.first: dict[str, dict[str, Any]] = {}
        self.states: dict[str, Any] = {}
        self.producer = Producer(
            settings.client_config()
            | {"transactional.id": f"{settings.app_id}-scribe", "partitioner": "murmur2_random"}
        )
        self.producer.init_transactions(60)

    def handle(self) -> None:
        """Every event so far: gateway, result, metric, tables, offsets; unreadable ones are dead letters."""
        self.producer.begin_transaction()
        messages = committed(self.settings, PAYMENTS)
        for message in messages:
            try:
                now_ms = time.time_ns() // 1_000_000
                event = PaymentEvent.from_bytes(message.value(), key=message.key(), now_ms=now_ms)
            except ValueError:
                source = f"{message.topic()}/{message.partition()}/{message.offset()}"
                self.send(DEAD_LETTERS, message.key(), message.value(), {"source": source.encode()})
            else:
                self.answer(event, message)
        self.commit(messages)

    def answer(self, event: PaymentEvent, message: Message) -> None:
        """The unit of one event."""
        key = f"{event.user_id}/{event.payment_id}"
        replayed = key in self.first
        if not replayed:
            self.first[key] = post_charge(self.settings.simulator_url, event)
        ref = self.first[key]["id"]
        source: Any = {"topic": message.topic(), "partition": message.partition(), "offset": message.offset()}
        names: dict[str, Any] = {
            "payment_id": event.payment_id, "product": event.product, "action": "charge",
            "status": "succeeded", "replayed": replayed, "amount_minor": event.amount_minor,
            "currency": event.currency, "gateway": event.gateway,
        }  # fmt: skip
        result = charge_result(
            **names, user_id=event.user_id, reason=None, gateway_ref=ref, attempt=1,
            requested_at=event.requested_at, processed_at=NOW_MS, source=source,
        )  # fmt: skip
        self.send(RESULTS, message.key(), result)
        self.send(METRICS, event.product.encode(), payment_metric(**names, gateway_ms=1, at=NOW_MS))
        state = self.states[event.user_id] = after(
            self.states.get(event.user_id), user_id=event.user_id, amount_minor=event.amount_minor,
            currency=event.currency, replayed=replayed, payment_id=event.payment_id, processed_at=NOW_MS,
        )  # fmt: skip
        self.log("charges", event.user_id, state)
        self.log("payments", key, stored_payment(event, source, ref, NOW_MS))

    def send(self, name: str, key: Any, value: Any, headers: dict[str, bytes] | None = None) -> None:
        """One record."""
        pairs: Any = list((headers or {}).items())
        self.producer.produce(self.settings.topic(name), key=key, value=value, headers=pairs)

    def log(self, table: str, key: str, value: object) -> None:
        """One changelog record, key in JSON as Faust writes it."""
        topic = self.settings.changelog(table)
        self.producer.produce(topic, key=orjson.dumps(key), value=orjson.dumps(value))

    def commit(self, messages: list[Message]) -> None:
        """Commit with the offset at the end of each partition that has an event."""
        group = self.settings.client_config() | {"group.id": self.settings.app_id}
        consumer = Consumer(group)
        sources = [(self.settings.topic(PAYMENTS), p) for p in {one.partition() or 0 for one in messages}]
        ends = CommittedLog(self.settings).ends(sources)  # behind the commit markers
        places = [TopicPartition(*place, end) for place, (_, end) in ends.items()]
        self.producer.send_offsets_to_transaction(places, consumer.consumer_group_metadata(), 60)
        self.producer.commit_transaction(60)
        consumer.close()


def post_charge(url: str, event: PaymentEvent) -> dict[str, Any]:
    """Charge at the simulator as the adapter does."""
    key = gateway_key(event)
    body = {
        "amount": event.amount_minor,
        "currency": event.currency,
        "payment_method": event.payment_method,
        "metadata": {"ref": key, "user_id": event.user_id, "payment_id": event.payment_id},
    }
    headers = {"Idempotency-Key": key, "Content-Type": "application/json"}
    made: dict[str, Any] = ask(url + "/v1/charges", body, headers=headers)
    return made


def lines(*numbers: int) -> io.BytesIO:
    """Payments as JSON lines."""
    rows = [
        {
            "payment_id": f"p{number}", "user_id": f"u{number % 3}", "product": "gift", "amount_minor": 100,
            "currency": "EUR", "payment_method": "pm_card_visa",
        }
        for number in numbers
    ]  # fmt: skip
    return io.BytesIO(b"".join(orjson.dumps(row) + b"\n" for row in rows))


@pytest.fixture
def scribe(settings: Settings, tmp_path: Path) -> Scribe:
    """25 payments, two of them sent twice, a bad record: all handled."""
    submit_lines(settings, tmp_path, lines(*range(25), 3, 4))
    bad = Producer(settings.client_config() | {"enable.idempotence": True})
    bad.produce(settings.topic(PAYMENTS), key=b"u1", value=b"{", partition=0)
    assert 0 == bad.flush(60)
    made = Scribe(settings)
    made.handle()
    wait_settled(settings, *map(settings.topic, (RESULTS, METRICS, DEAD_LETTERS)))
    wait_settled(settings, *map(settings.changelog, ("charges", "payments")))
    return made


def test_books_that_agree_are_ok(settings: Settings, scribe: Scribe) -> None:
    """Every side is counted: events, results, metrics, dead letters, charges page by page, money."""
    report = run_audit(settings, wait_s=60, gateway_page=10)

    assert () == report.problems
    assert report.ok
    assert (28, 25, 2, 1) == (report.events, report.payments, report.resent, report.unreadable_events)
    assert {"succeeded": (25, 2, 0)} == report.results
    assert ({"succeeded": 25}, {"EUR": (2500, 2500, 2500)}) == (report.gateway, report.money)
    assert (27, 27, 1, 0) == (report.metrics, report.requested, report.dead_letters, report.open)


def test_a_charge_that_no_result_knows_is_found(settings: Settings, scribe: Scribe) -> None:
    """Money that moved at the gateway alone: the charge is named, the sums differ."""
    event = PaymentEvent(
        payment_id="p99", user_id="u1", product="gift", amount_minor=77, currency="EUR",
        payment_method="pm_card_visa", gateway="simulated", requested_at=1,
    )  # fmt: skip
    post_charge(settings.simulator_url, event)

    report = run_audit(settings, wait_s=60)

    assert ["charge without result", "money differs"] == [problem.kind for problem in report.problems]
    assert "u1/p99" in report.problems[0].about


def test_records_of_an_aborted_transaction_do_not_count(settings: Settings, scribe: Scribe) -> None:
    """A result that was never committed is not in the books."""
    message = committed(settings, RESULTS)[0]
    scribe.producer.begin_transaction()
    scribe.send(RESULTS, message.key(), message.value())
    scribe.producer.flush(60)
    scribe.producer.abort_transaction(60)

    assert run_audit(settings, wait_s=60).ok


def test_events_that_nobody_handles_wait_and_are_no_difference(
    settings: Settings, scribe: Scribe, tmp_path: Path
) -> None:
    """The wait is bounded; a backlog is counted, and found settled once somebody has handled it."""
    submit_lines(settings, tmp_path, lines(1000))
    wait_settled(settings, *map(settings.topic, (PAYMENTS, METRICS)))
    start = time.monotonic()

    report = run_audit(settings, wait_s=1)

    assert 1 <= time.monotonic() - start < 60  # the command's limit is that long after its default, 30
    assert ((), True, False, 1) == (report.problems, report.ok, report.settled, report.outcomes["waiting"])
    assert [settings.topic(PAYMENTS)] == list(report.behind)


def test_the_audit_waits_for_what_is_under_way(settings: Settings, tmp_path: Path) -> None:
    """Events are sent, their results come a second later: no problem."""
    submit_lines(settings, tmp_path, lines(*range(5)))
    worker = threading.Timer(1, Scribe(settings).handle)
    worker.start()

    report = run_audit(settings, wait_s=60)

    worker.join()
    assert (True, 5) == (report.ok, report.events)


def test_a_gateway_that_does_not_answer_is_said_beside_the_rest(
    settings: Settings, scribe: Scribe, gateway: Simulator
) -> None:
    """With the address, what to start, which setting; results and tables are compared all the same."""
    gateway.stop()

    report = run_audit(settings, wait_s=1)

    assert re.search(r"^the gateway at .* does not answer .*BILLING_GATEWAY_URL$", report.unread or "")
    assert ((), False, 25) == (report.problems, report.ok, report.outcomes["charged"])
    gateway.start()


def test_a_missing_broker_is_one_line() -> None:
    """Within about ten seconds, but for what else the machine does."""
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        settings = Settings(broker=f"kafka://127.0.0.1:{nobody.getsockname()[1]}")
        start = time.monotonic()
        for read in (run_audit, lambda one: follow_results(one, follow=True, out=io.StringIO())):
            with pytest.raises(KafkaProblem, match=r"^Kafka at .* does not answer .*BILLING_BROKER$"):
                read(settings)
    assert 90 > time.monotonic() - start


def test_results_are_printed_once(settings: Settings, scribe: Scribe) -> None:
    """Without `follow`: each committed result is one JSON line, then it ends."""
    out = io.StringIO()

    assert 27 == follow_results(settings, follow=False, out=out)

    printed = [orjson.loads(line) for line in out.getvalue().splitlines()]
    assert {f"p{number}" for number in range(25)} == {one["payment_id"] for one in printed}


class UntilThreeLines(io.StringIO):
    """An output whose reader goes away after the third line."""

    def write(self, text: str) -> int:
        if self.getvalue().count("\n") == 3:
            raise BrokenPipeError
        return super().write(text)


def test_followed_results_come_as_they_are_committed(settings: Settings, tmp_path: Path) -> None:
    """`follow` waits for results of the future; it ends quietly when nobody reads on."""
    out, printed = UntilThreeLines(), list[int]()
    thread = threading.Thread(
        target=lambda: printed.append(follow_results(settings, follow=True, out=out)), daemon=True
    )
    thread.start()
    submit_lines(settings, tmp_path, lines(*range(4)))
    time.sleep(0.5)
    assert "" == out.getvalue()

    Scribe(settings).handle()

    thread.join(60)
    assert [3] == printed
    assert 3 == len(out.getvalue().splitlines())
