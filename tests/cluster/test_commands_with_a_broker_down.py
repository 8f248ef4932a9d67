"""Whatever people type, and whatever a shop sends, works while one of three brokers is down."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import orjson
import pytest
from support.system import System, payment
from support.topics import committed, make_topics
from support.until import until

from broker.cluster import LocalCluster, Node
from broker.leaders import transaction_coordinator
from faust_exactly_once import partition_of
from streamsocial_billing.intake.producer import PaymentProducer
from streamsocial_billing.settings import METRICS, PAYMENTS, Settings

ANSWERS_WITHIN_S = 20.0
"""How long `submit` may take on a quiet machine while one of three brokers is down."""
BUSY = 2.5
"""How much longer everything may take on a machine that has other work."""
WHO = ("--reason", "a test", "--actor", "ann", "--wait", "50")
LETTER = "<letter>"
"""Stands for the id of the dead letter."""

Command = tuple[tuple[str, ...], bytes, int, str]
"""Words, standard input, exit code, what the output holds."""
COMMANDS: dict[str, Command] = {
    "submit": (("submit", "-"), payment("user-1", "typed").to_bytes(), 0, "1 accepted, 0 refused"),
    "results": (("results", "--user", "user-1"), b"", 0, '"payment_id":"before-1"'),
    "dlq list": (("dlq", "list"), b"", 0, "bad_amount"),
    "dlq show": (("dlq", "show", LETTER), b"", 0, "bad_amount"),
    "dlq replay": (
        ("dlq", "replay", LETTER, "--correction", "-", "--actor", "ann"),
        payment("user-2", "corrected").to_bytes(), 0, "is back on",
    ),
    "resolve": (
        ("resolve", "user-1/before-1", "--status", "failed", *WHO), b"", 1, "it is succeeded: only",
    ),
    "gateways stop": (("gateways", "stop", "simulated", *WHO), b"", 0, "simulated is stopped"),
    "gateways": (("gateways",), b"", 0, "simulated"),
    "gateways start": (("gateways", "start", "simulated", *WHO), b"", 0, "simulated is started"),
    "subscriptions add": (
        ("subscriptions", "add", "user-3", "42", "--amount-minor", "999", "--currency", "EUR",
         "--payment-method", "pm_card_visa", *WHO),
        b"", 0, "42",
    ),
    "subscriptions list": (("subscriptions", "list", "user-3"), b"", 0, '"subscription_id":"42"'),
    "audit": (("audit",), b"", 0, "nothing differs"),
    "reconcile": (("reconcile",), b"", 0, "clean"),
}  # fmt: skip


class Half:
    """A system at work; its broker that a test may end."""

    def __init__(self, system: System, victim: Node) -> None:
        self.system = system
        self.victim = victim
        self.letter = ""

    def run(self, words: tuple[str, ...], given: bytes) -> tuple[int, str, float]:
        """A command as it is typed; its exit code, what it printed, how long it took in seconds."""
        program = str(Path(sys.executable).with_name("streamsocial-billing"))
        typed = [self.letter if word == LETTER else word for word in words]
        began = time.monotonic()
        done = subprocess.run(
            [program, f"--datadir={self.system.folder / 'client'}", *typed], input=given,
            capture_output=True, env={**os.environ, **self.system.worker.environment}, check=False,
            cwd=self.system.folder, timeout=ANSWERS_WITHIN_S * BUSY + 120,
        )  # fmt: skip
        return done.returncode, (done.stdout + done.stderr).decode(), time.monotonic() - began


@pytest.fixture
def settings(cluster: LocalCluster, unique_name: str, topic_prefix: str) -> Settings:
    """An app of this test alone, each of its records on three brokers."""
    made = Settings(
        app_id=unique_name, broker=cluster.url, topic_prefix=topic_prefix, partitions=4, replication=3,
        gateway_url="http://127.0.0.1:1",
    )  # fmt: skip
    make_topics(made)
    return made


class AtTheCommit(PaymentProducer):
    """An intake that something happens to once its records are confirmed, before their commit."""

    happens: Callable[[], None]

    def _before_commit(self) -> None:
        happens, self.happens = self.happens, lambda: None
        happens()


@pytest.mark.timeout(360)
@pytest.mark.parametrize("how", ["kill", "pause", pytest.param("stop", marks=pytest.mark.slow)])
def test_a_commit_whose_coordinator_goes_is_known_in_the_end(
    how: str, cluster: LocalCluster, settings: Settings, tmp_path: Path
) -> None:
    """Asked for again, or sent again where it was aborted: done, and once on the log, in its time."""
    with AtTheCommit(settings, tmp_path) as intake:
        number = transaction_coordinator(cluster.bootstrap, intake.transactional_id)
        assert number is not None
        victim = cluster.brokers[number - 1]
        intake.happens = getattr(victim, how)
        began = time.monotonic()
        try:
            intake.submit([payment("user-1", "p1")])
            took_s = time.monotonic() - began
            intake.submit([payment("user-1", "p2")])
        finally:
            victim.resume()
            cluster.start()

    assert took_s < ANSWERS_WITHIN_S * BUSY
    for name in (PAYMENTS, METRICS):
        assert ["p1", "p2"] == payment_ids(settings, name)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_submits_go_on_while_each_broker_is_killed_in_turn(
    cluster: LocalCluster, settings: Settings, tmp_path: Path
) -> None:
    """25 processes one after another, each broker dead for 15 s: all done in time, nothing twice."""
    env = {
        **os.environ, "BILLING_APP_ID": settings.app_id, "BILLING_BROKER": settings.broker,
        "BILLING_TOPIC_PREFIX": settings.topic_prefix, "BILLING_PARTITIONS": str(settings.partitions),
        "BILLING_REPLICATION": "3", "BILLING_GATEWAY_URL": "http://127.0.0.1:1",
    }  # fmt: skip
    program = str(Path(sys.executable).with_name("streamsocial-billing"))
    took, over = list[float](), threading.Event()

    def kill_in_turn() -> None:
        while not over.is_set():
            for victim in cluster.brokers:
                victim.kill()
                over.wait(15)
                cluster.start()
                if over.wait(5):
                    return

    killer = threading.Thread(target=kill_in_turn)
    killer.start()
    try:
        for number in range(25):
            began = time.monotonic()
            done = subprocess.run(
                [program, f"--datadir={tmp_path / 'client'}", "submit", "-"], env=env, check=False,
                input=payment(f"user-{number}", f"p{number:02}").to_bytes(), capture_output=True,
            )  # fmt: skip
            took.append(time.monotonic() - began)
            assert (0, b"1 accepted, 0 refused\n") == (done.returncode, done.stdout), done.stderr.decode()
            time.sleep(0.5)
    finally:
        over.set()
        killer.join(60)
        cluster.start()

    print(f"slowest submit: {max(took):.1f} s of {', '.join(f'{one:.1f}' for one in took)}")
    assert max(took) < ANSWERS_WITHIN_S
    assert [f"p{number:02}" for number in range(25)] == payment_ids(settings, PAYMENTS)


@pytest.fixture(scope="module")
def half(cluster: LocalCluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Half]:
    """A worker and a gateway at work; the first broker of every list was just killed."""
    folder = tmp_path_factory.mktemp("half")
    name = f"half-{os.getpid()}"
    with System(
        "127.0.0.1:1", folder, name, BILLING_BROKER=cluster.url, BILLING_REPLICATION=3
    ) as system:  # fmt: skip
        found = Half(system, cluster.brokers[0])
        system.start()
        bad = orjson.loads(payment("user-2", "bad").to_bytes()) | {"amount_minor": -5}
        place = partition_of(b"user-2", system.settings.partitions)
        system.submit([payment(f"user-{number}", f"before-{number}") for number in range(8)])
        system.append([(b"user-2", orjson.dumps(bad), place)])
        system.wait_answered()
        (letter,) = system.dead_letters.records
        found.letter = f"{letter.partition()}-{letter.offset()}"
        found.victim.kill()
        try:
            yield found
        finally:
            cluster.start()


@pytest.mark.timeout(360)
@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_works_while_one_of_three_brokers_is_down(name: str, half: Half) -> None:
    """The first broker of its list is dead; it does what it does, within its bound."""
    words, given, code, holds = COMMANDS[name]
    if name in ("audit", "reconcile"):  # they say of what is under way that it is
        until(lambda: not half.system.lag(), "what the commands before have sent is handled")

    found, said, took_s = half.run(words, given)

    assert (code, True) == (found, holds in said), said
    assert "does not answer" not in said
    assert took_s < ANSWERS_WITHIN_S * BUSY


@pytest.mark.timeout(360)
def test_a_payment_over_http_is_taken_while_one_of_three_brokers_is_down(half: Half) -> None:
    """503, if at all, says that the outcome is unknown; the same key again is answered."""
    began = time.monotonic()
    body = orjson.loads(payment("user-4", "posted").to_bytes())

    status, answer = post(half.system.worker.web_port, body)
    while status == 503:
        assert "outcome_unknown" == answer["error"]
        assert time.monotonic() - began < ANSWERS_WITHIN_S * BUSY
        status, answer = post(half.system.worker.web_port, body)

    assert status in (200, 202), answer
    assert half.system.results.wait(lambda: bool(half.system.results_of("posted")), ANSWERS_WITHIN_S * BUSY)


def post(port: int, body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
    """`POST /payments`; its status, its body."""
    request = Request(
        f"http://127.0.0.1:{port}/payments", orjson.dumps(body), {"Idempotency-Key": body["payment_id"]}
    )
    try:
        with urlopen(request, timeout=90) as reply:  # noqa: S310 - our own address
            return reply.status, orjson.loads(reply.read())
    except HTTPError as error:
        return error.code, orjson.loads(error.read())


def payment_ids(settings: Settings, name: str) -> list[str]:
    """What a topic holds for readers of committed records, sorted."""
    return sorted(orjson.loads(one.value() or b"")["payment_id"] for one in committed(settings, name))
