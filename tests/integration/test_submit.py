"""Payments come in whole, once, with their metrics, through a real broker."""

from __future__ import annotations

import fcntl
import io
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

import orjson
import pytest
from confluent_kafka import Message, Producer
from support.topics import ROOT, committed, committed_now, make_topics

from faust_exactly_once import partition_of
from streamsocial_billing.domain.events import PaymentEvent
from streamsocial_billing.intake.identity import IntakeError
from streamsocial_billing.intake.producer import PaymentProducer
from streamsocial_billing.intake.submit import submit_lines
from streamsocial_billing.settings import METRICS, PAYMENTS, Settings


@pytest.fixture
def settings(broker: str, unique_name: str, topic_prefix: str) -> Settings:
    """An app of this test alone, with its topics."""
    made = Settings(
        app_id=unique_name, broker=f"kafka://{broker}", topic_prefix=topic_prefix, partitions=4,
        gateway_url="http://127.0.0.1:1",
    )  # fmt: skip
    make_topics(made)
    return made


def payment(number: int, **other: object) -> dict[str, object]:
    """A payment as a caller sends it."""
    return {
        "payment_id": f"p{number}",
        "user_id": f"u{number % 50}",
        "product": "subscription",
        "amount_minor": 999,
        "currency": "USD",
        "payment_method": "pm_card_visa",
    } | other


def lines(count: int, first: int = 0) -> bytes:
    """JSON lines of so many payments."""
    return b"".join(orjson.dumps(payment(first + number)) + b"\n" for number in range(count))


def event(number: int) -> PaymentEvent:
    """A payment as an event."""
    return PaymentEvent.from_mapping(payment(number), now_ms=1_700_000_000_000, default_gateway="simulated")


def ids(settings: Settings, name: str) -> list[str]:
    """The payment ids on a topic, sorted."""
    return payment_ids(committed(settings, name))


def payment_ids(messages: Iterable[Message]) -> list[str]:
    """The payment ids of events or metrics, sorted."""
    return sorted(orjson.loads(one.value() or b"")["payment_id"] for one in messages)


def until(seconds: float, what: object) -> None:
    """Wait until `what()` is true; fails after so many seconds."""
    deadline = time.monotonic() + seconds
    while not what():  # type: ignore[operator]
        assert time.monotonic() < deadline, f"not within {seconds} s"
        time.sleep(0.02)


def test_each_payment_arrives_with_its_metric(settings: Settings, tmp_path: Path) -> None:
    """1 200 lines, so three transactions: as many events, as many metrics `requested`."""
    counts = submit_lines(settings, tmp_path, io.BytesIO(lines(1200)))

    expected = sorted(f"p{number}" for number in range(1200))
    assert (1200, 0) == counts
    assert expected == ids(settings, PAYMENTS)
    assert expected == ids(settings, METRICS)
    assert {"requested"} == {orjson.loads(m.value() or b"")["status"] for m in committed(settings, METRICS)}


def test_an_event_lies_where_faust_looks_for_its_user(settings: Settings, tmp_path: Path) -> None:
    """Key = raw user_id, partition = murmur2 of it, value = a whole PaymentEvent with the gateway stamped."""
    submit_lines(settings, tmp_path, io.BytesIO(lines(50)), default_gateway="stripe")

    for message in committed(settings, PAYMENTS):
        read = PaymentEvent.from_bytes(message.value(), key=message.key(), now_ms=time.time_ns() // 1_000_000)
        assert "stripe" == read.gateway
        assert partition_of(message.key() or b"", 4) == message.partition()


def test_bad_lines_are_named_and_stop_nothing(settings: Settings, tmp_path: Path) -> None:
    """Each bad line is reported with number and reason; the others are accepted; no card number is shown."""
    said: list[str] = []
    bad = [
        b"{not json",
        b"[1]",
        orjson.dumps(payment(3, amount_minor=-1)),
        orjson.dumps(payment(4, payment_method="4242 4242 4242 4242")),
        b"x" * 1_100_000,
    ]
    stream = lines(1) + b"\n" + b"\n".join(bad) + b"\r\n" + lines(1, first=9).rstrip()

    counts = submit_lines(settings, tmp_path, io.BytesIO(stream), say=said.append)

    assert (2, 5) == counts
    assert [
        ("line 3", "not_json"),
        ("line 4", "not_an_object"),
        ("line 5", "bad_amount"),
        ("line 6", "card_number"),
        ("line 7", "too_large"),
    ] == [tuple(text.split(": ")[:2]) for text in said]
    assert "4242" not in "".join(said)
    assert ["p0", "p9"] == ids(settings, PAYMENTS)


def test_a_pipe_that_stays_open_does_not_hold_payments_back(settings: Settings, tmp_path: Path) -> None:
    """A line on an open pipe is on the log soon; half a line waits for its rest."""
    read_end, write_end = os.pipe()
    counts: list[tuple[int, int]] = []
    with os.fdopen(read_end, "rb") as stream:
        thread = threading.Thread(target=lambda: counts.append(submit_lines(settings, tmp_path, stream)))
        thread.start()
        try:
            first, second = lines(1), lines(1, first=1)
            os.write(write_end, first + second[:20])
            until(60, lambda: ["p0"] == ids(settings, PAYMENTS))
            os.write(write_end, second[20:])
            until(60, lambda: ["p0", "p1"] == ids(settings, PAYMENTS))
        finally:
            os.close(write_end)
            thread.join(60)
    assert [(2, 0)] == counts


def test_the_transactional_id_is_stable(settings: Settings, tmp_path: Path) -> None:
    """The next intake on the data folder has the same id, so it ends what a killed one left open."""
    with PaymentProducer(settings, tmp_path) as producer:
        first = producer.transactional_id
    with PaymentProducer(settings, tmp_path) as producer:
        second = producer.transactional_id

    assert first == second
    assert first.startswith(f"{settings.app_id}-intake-")


def test_two_intakes_on_one_data_folder_do_not_fence_each_other(settings: Settings, tmp_path: Path) -> None:
    """The second takes an id of its own; both go on; the first one's is free again afterwards."""
    with PaymentProducer(settings, tmp_path) as one, PaymentProducer(settings, tmp_path) as two:
        assert f"{one.transactional_id}-1" == two.transactional_id
        for number in range(3):
            one.submit([event(number)])
            two.submit([event(100 + number)])

    assert ["p0", "p1", "p100", "p101", "p102", "p2"] == ids(settings, PAYMENTS)


# an intake that stops in the middle of its transaction: half of the records are confirmed by the broker
HALF_WAY = """
import sys, time
from pathlib import Path
from streamsocial_billing.domain.events import PaymentEvent
from streamsocial_billing.intake.producer import PaymentProducer
from streamsocial_billing.kafka import transactions
from streamsocial_billing.settings import Settings

usual = transactions.producer_config
transactions.producer_config = lambda *about: usual(*about) | {"transaction.timeout.ms": 300_000}

class HalfWay(PaymentProducer):
    def _before_commit(self):
        print("in the middle", flush=True)
        time.sleep(600)

import orjson
data = orjson.loads(sys.argv[1])
settings = Settings(app_id=data["app_id"], broker=data["broker"], topic_prefix=data["prefix"])
event = PaymentEvent.from_mapping(data["payment"], now_ms=1_700_000_000_000, default_gateway="simulated")
HalfWay(settings, Path(data["datadir"])).submit([event])
"""


@pytest.fixture
def killed_intake(settings: Settings, tmp_path: Path) -> Iterator[None]:
    """An intake was killed with SIGKILL after every record was confirmed, before the commit."""
    told = {
        "app_id": settings.app_id,
        "broker": settings.broker,
        "prefix": settings.topic_prefix,
        "datadir": str(tmp_path),
        "payment": payment(7),
    }
    process = subprocess.Popen(
        [sys.executable, "-c", HALF_WAY, orjson.dumps(told).decode()],
        stdout=subprocess.PIPE,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )
    assert process.stdout is not None
    assert b"in the middle\n" == process.stdout.readline()
    process.send_signal(signal.SIGKILL)
    process.communicate()
    yield


@pytest.mark.usefixtures("killed_intake")
def test_a_killed_intake_leaves_nothing_visible(settings: Settings, tmp_path: Path) -> None:
    """Neither its event nor its metric; the next intake of the folder ends the transaction."""
    assert [] == committed_now(settings, PAYMENTS) == committed_now(settings, METRICS)

    assert (1, 0) == submit_lines(settings, tmp_path, io.BytesIO(lines(1)))

    for name in (PAYMENTS, METRICS):  # long before a time-out: an open transaction would hide it
        until(120, lambda: ["p0"] == payment_ids(committed_now(settings, name)))  # noqa: B023 - called here


def test_a_fenced_intake_reopens_without_a_double(settings: Settings, tmp_path: Path) -> None:
    """Fenced before its commit, the chunk is surely not on the log: it is sent again, once."""
    with PaymentProducer(settings, tmp_path) as producer:
        producer.submit([event(0)])
        config = settings.client_config() | {"transactional.id": producer.transactional_id, "log_level": 0}
        Producer(config).init_transactions(60)
        producer.submit([event(1)])

    assert ["p0", "p1"] == ids(settings, PAYMENTS)
    assert ["p0", "p1"] == ids(settings, METRICS)


def test_no_broker_is_one_line_that_says_what_to_do(tmp_path: Path) -> None:
    """With the address and the setting; within about ten seconds, but for what else the machine does."""
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        settings = Settings(broker=f"kafka://127.0.0.1:{nobody.getsockname()[1]}")
        start = time.monotonic()

        with pytest.raises(IntakeError) as caught:
            submit_lines(settings, tmp_path, io.BytesIO(lines(1)))

    assert 60 > time.monotonic() - start
    assert "\n" not in str(caught.value)
    assert settings.bootstrap in str(caught.value) and "BILLING_BROKER" in str(caught.value)


def test_missing_topics_are_not_made_by_the_intake(broker: str, unique_name: str, tmp_path: Path) -> None:
    """Their partition count is the app's to choose: the error says that a worker creates them."""
    settings = Settings(app_id=unique_name, broker=f"kafka://{broker}", topic_prefix=unique_name)

    for _ in range(2):
        with pytest.raises(IntakeError, match="does not exist: start a worker first"):
            submit_lines(settings, tmp_path, io.BytesIO(lines(1)))


def test_a_data_folder_that_cannot_be_used_is_one_line(tmp_path: Path) -> None:
    """A file where the folder should be."""
    (tmp_path / "data").write_text("")

    with pytest.raises(IntakeError, match="choose another one with --datadir"):
        PaymentProducer(Settings(), tmp_path / "data")


def test_a_damaged_intake_id_is_named(tmp_path: Path) -> None:
    """It is not replaced silently: another intake may run under it."""
    (tmp_path / "intake-id").write_text("../../x")

    with pytest.raises(IntakeError, match="intake-id is damaged: delete it"):
        PaymentProducer(Settings(), tmp_path)


def test_a_failed_start_gives_the_id_back(broker: str, unique_name: str, tmp_path: Path) -> None:
    """After the error nobody holds the lock of number 0."""
    settings = Settings(app_id=unique_name, broker=f"kafka://{broker}", topic_prefix=unique_name)
    with pytest.raises(IntakeError):
        PaymentProducer(settings, tmp_path)

    with (tmp_path / "intake-0.lock").open() as lock:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
