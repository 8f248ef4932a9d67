"""What real workers write into their logs: a fresh start, payments, Kafka away, a rebalance, a clean stop."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.system import CALM, Payments, System, WorkerProcess, free_port, payment
from support.until import until

from broker import LocalBroker

LINE = re.compile(
    r"(?P<time>\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z) (?P<level>INFO|WARNING|ERROR|CRITICAL) "
    r"(?P<logger>[\w.]+) (?P<message>[^\x00-\x1f\x7f]+)"
)
AWAY_S = 25.0
MOST_A_MINUTE = 20
TOKEN = "t0ken-of-the-api"
CARD = "4242424242424242"


class Lines:
    """What a worker has written, line by line; each must have the format."""

    def __init__(self, worker: WorkerProcess, *, from_line: int = 0) -> None:
        self.raw = worker.log_file.read_text().splitlines()[from_line:]
        self.found = [LINE.fullmatch(line) for line in self.raw]

    def assert_format(self) -> None:
        """No banner, no logo, no colours, no line without a time."""
        assert [] == [raw for raw, found in zip(self.raw, self.found, strict=True) if found is None]

    def messages(self, *levels: str) -> list[str]:
        """The messages of these levels, of all without any."""
        return [one["message"] for one in self.found if one and (not levels or one["level"] in levels)]

    def about(self, *texts: str) -> list[str]:
        """Which of the texts stand in a message, in the order in which they first do."""
        every = "\n".join(self.messages())
        return sorted((text for text in texts if text in every), key=every.index)


def quiet(system: System) -> WorkerProcess:
    """Its worker with the log level that it has by default."""
    for worker in system.workers:
        worker.options = ()
    return system.worker


@pytest.fixture
def system(broker: str, tmp_path: Path, unique_name: str) -> Iterator[System]:
    """Two workers with the default log level, none started."""
    with System(
        broker, tmp_path, unique_name, workers=2, partitions=2, BILLING_API_TOKEN=TOKEN, **CALM
    ) as system:
        quiet(system)
        yield system


def test_a_life_without_trouble_has_no_warnings_and_says_what_an_operator_needs(system: System) -> None:
    """Ready with partitions, each outcome once it is committed, partitions lost, stopping, stopped."""
    first, second = system.workers
    first.start()
    first.wait_for_line(r" ready: partitions 0-1 \(2 of 2\), \d+\.\d s after the start")
    system.submit([payment("u1", "p1"), payment("u1", "p2", payment_method="pm_card_declined")])
    first.wait_for_line(r" charge succeeded payment_id=p1 user_id=u1 .*task=\d offset=\d+ attempt=1")
    first.wait_for_line(r" charge declined payment_id=p2 user_id=u1 .*reason=card_declined task=\d ")
    second.start()
    first.wait_for_line(r" partitions gained: none; lost: [01]; now here: [01]")
    second.wait_for_line(r" ready: partitions [01] \(1 of 2\)")
    assert 0 == second.stop()
    first.wait_for_line(r" partitions gained: [01]; lost: none; now here: 0-1")
    first.wait_for_line(r" ready: partitions 0-1 \(2 of 2\), \d+\.\d s after the rebalance")
    assert 0 == first.stop()
    for worker in system.workers:
        lines = Lines(worker)
        lines.assert_format()
        assert [] == lines.messages("WARNING", "ERROR", "CRITICAL")
        assert ["ready: ", "stopping: SIGTERM", "stopped: SIGTERM"] == lines.about(
            "stopped: SIGTERM", "stopping: SIGTERM", "ready: "
        )
        assert "pm_card" not in worker.log_file.read_text()


def test_as_json_each_line_is_an_object_with_the_fields_of_its_payment(system: System) -> None:
    """`--log-format json`: ids, task, offset, attempt are fields; numbers are numbers."""
    worker = system.worker
    worker.options = ("--log-format", "json")
    worker.start()
    worker.wait_for_line(r'"message":"ready: partitions 0-1 ')
    system.submit([payment("u1", "p1"), payment("u1", "p1")])
    worker.wait_for_line(r'"replayed":true')
    assert 0 == worker.stop()
    every = [json.loads(line) for line in worker.log_file.read_text().splitlines()]
    assert all({"time", "level", "logger", "message"} <= one.keys() for one in every)
    first, again = [one for one in every if one["logger"] == "outcome"]
    assert ("p1", "u1", "charge", "succeeded", 0, 1) == tuple(
        first[key] for key in ("payment_id", "user_id", "action", "status", "offset", "attempt")
    )
    assert (first["task"], 1, True) == (again["task"], again["offset"], again["replayed"])
    assert "SIGTERM" == next(one["signal"] for one in every if "signal" in one)


def test_neither_card_numbers_nor_secrets_are_in_the_log(system: System) -> None:
    """Of bad events, which are named there, with what was wrong about them."""
    worker = system.worker
    worker.start()
    bad = {"payment_id": "p1", "user_id": "u1", "product": "gift", "amount_minor": 1, "currency": "EUR"}
    for number, wrong in enumerate(
        ({"payment_method": CARD}, {"payment_method": "pm", "note": f"Bearer {TOKEN}"}, {"gateway": "x\ny"})
    ):
        value = json.dumps(bad | {"payment_id": f"p{number}"} | wrong).encode()
        system.append([(b"u1", value, partition) for partition in range(2)])
    system.append([(CARD.encode(), f"Bearer {TOKEN} \n {CARD}".encode(), 0)])
    system.wait_answered()
    assert 0 == worker.stop()
    log = worker.log_file.read_text()
    assert "dead letter" in log
    assert [] == [word for word in (CARD, TOKEN) if word in log]
    Lines(worker).assert_format()


@pytest.mark.timeout(600)
def test_kafka_away_is_said_when_it_begins_when_it_ends_and_in_between_with_counts(
    tmp_path: Path, unique_name: str
) -> None:
    """At most 20 lines a minute, outcomes apart, though the libraries had hundreds."""
    kafka = LocalBroker(tmp_path / "kafka", port=0)
    with kafka as own, System(own.bootstrap, tmp_path, unique_name, BILLING_SESSION_TIMEOUT_S=6) as system:
        worker = quiet(system)
        worker.start()
        worker.wait_for_line(" ready: ")
        system.submit(Payments(seed=1).take(40))
        system.wait_answered()
        system.gateway.faults(latency_ms=500)
        system.submit(Payments(seed=2).take(40))
        before, began = len(worker.log_file.read_text().splitlines()), time.monotonic()
        own.kill()
        worker.wait_for_line(r" ERROR exactly_once Kafka is not reachable")
        worker.wait_for_line(r"Kafka is still not reachable, \d+ s, \d+ messages not shown")
        time_left_s = AWAY_S - (time.monotonic() - began)
        until(lambda: time.monotonic() > began + AWAY_S, "the time that Kafka is away", time_left_s + 5)
        own.start()
        back = worker.wait_for_line(r"Kafka is reachable again after \d+ s, \d+ messages not shown")
        worker.wait_for_line(r"WARNING exactly_once Kafka is reachable again")
        minutes = (time.monotonic() - began) / 60
        lines = Lines(worker, from_line=before)
        lines.assert_format()
        other = [one for one in lines.messages() if "payment_id=" not in one]
        assert len(other) <= MOST_A_MINUTE * max(minutes, 1.0), "\n".join(other)
        hidden = re.search(r"(\d+) messages not shown", back)
        assert hidden is not None
        assert int(hidden[1]) > 100
        assert 1 == len([one for one in other if "Kafka is not reachable" in one])
        assert worker.running


def test_a_gateway_that_is_down_is_said_once_when_it_begins_once_when_it_ends(system: System) -> None:
    """The breaker's two lines; what waits has its outcome, `unknown`, then the final one."""
    worker = system.worker
    worker.start()
    worker.wait_for_line(" ready: ")
    system.gateway.stop()
    system.submit(Payments(seed=3).take(30))
    worker.wait_for_line(
        r" ERROR gateways.resilient gateway simulated: breaker closed -> open.* breaker=open"
    )
    system.gateway.start()
    worker.wait_for_line(r" WARNING gateways.resilient gateway simulated: breaker half_open -> closed")
    worker.wait_for_line(r" charge succeeded .*resolves=true")
    assert 0 == worker.stop()
    lines = Lines(worker)
    lines.assert_format()
    breaker = [one for one in lines.messages("WARNING", "ERROR") if "breaker" in one]
    assert 2 == len(breaker), breaker


@pytest.mark.parametrize("form", ["text", "json"])
def test_the_gateway_simulator_writes_the_same_format(form: str, tmp_path: Path) -> None:
    """Its address in the first line, why it ended in the last."""
    program = str(Path(sys.executable).with_name("streamsocial-billing"))
    command = [program, "gateway", "--port", str(free_port()), "--ledger", str(tmp_path / "ledger.sqlite")]
    gateway = subprocess.Popen(
        command, env={**os.environ, "BILLING_LOG_FORMAT": form}, stdout=subprocess.PIPE, text=True
    )
    assert gateway.stdout is not None
    with gateway.stdout as out:
        first = out.readline().rstrip()
        gateway.terminate()
        rest = out.read().splitlines()
    assert 0 == gateway.wait(60)
    if form == "json":
        found = [(one["level"], one["message"]) for one in map(json.loads, [first, *rest])]
    else:
        read = [LINE.fullmatch(line) for line in [first, *rest]]
        found = [(one["level"], one["message"]) for one in read if one]
    assert [("INFO", f"listening at http://127.0.0.1:{command[3]} "), ("INFO", "stopped: ")] == [
        (found[0][0], found[0][1].split("ledger")[0]), (found[1][0], found[1][1][:9])
    ]  # fmt: skip
    assert 2 == len(found)
