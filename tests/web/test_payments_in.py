"""POST /payments at real workers over real HTTP, down to the charges at the gateway."""

from __future__ import annotations

import asyncio
import gzip
import socket
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

import aiohttp
import orjson
import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as examples
from hypothesis import strategies as st
from support.patient_worker import PATIENT
from support.system import CALM, System, WorkerProcess, payment
from support.topics import committed
from support.web_client import Answer, get, post
from support.webhook_payloads import SECRET, stripe_charge, stripe_event, stripe_signature

from broker import LocalBroker
from faust_exactly_once import partition_of
from streamsocial_billing.domain.events import PaymentEvent
from streamsocial_billing.domain.payment_identity import gateway_key
from streamsocial_billing.kafka.committed import CommittedLog
from streamsocial_billing.settings import GATEWAY_EVENTS, METRICS, PAYMENTS
from streamsocial_billing.web.payments_in import QUESTIONS

PARTITIONS = 4
TOKEN = "a-token-that-nobody-guesses"


@pytest.fixture(scope="module")
def system(broker: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[System]:
    """Two workers that share four partitions."""
    folder = tmp_path_factory.mktemp("intake")
    options: dict[str, Any] = {"workers": 2, "partitions": PARTITIONS, **CALM}
    with System(broker, folder, f"intake-{time.time_ns()}", **options) as system:
        be_patient(system)
        system.start()
        wait_until(lambda: all(len(assigned(worker)) == PARTITIONS // 2 for worker in system.workers))
        yield system


def be_patient(system: System) -> None:
    """An owner that is only slow is not away: what it knows is waited for."""
    for worker in system.workers:
        worker.program = PATIENT


def wait_until(true: Any, within_s: float = 120) -> None:
    """Ask again and again."""
    deadline = time.monotonic() + within_s
    while not true():
        assert time.monotonic() < deadline, "it did not become true"
        time.sleep(0.05)


def assigned(worker: WorkerProcess) -> list[int]:
    """The partitions that a worker runs."""
    body = get(worker.web_port, "/ready").json()
    return body["assigned"] if body["ready"] else []


def fields(user_id: str, **more: object) -> dict[str, object]:
    """A payment as a caller sends it, its id in the header alone."""
    return {
        "user_id": user_id, "product": "gift", "amount_minor": 999, "currency": "EUR",
        "payment_method": "pm_card_visa", **more,
    }  # fmt: skip


def pay(worker: WorkerProcess, payment_id: str, user_id: str, **more: Any) -> Answer:
    """POST a payment."""
    body = orjson.dumps(fields(user_id, **more))
    return post(worker.web_port, "/payments", body, Idempotency_Key=payment_id)


def repeated(worker: WorkerProcess, payment_id: str, user_id: str, **more: Any) -> Answer:
    """POST it again until it is final."""
    seen: list[Answer] = []

    def final() -> bool:
        seen.append(pay(worker, payment_id, user_id, **more))
        return seen[-1].status != 202

    wait_until(final)
    return seen[-1]


def events_of(system: System, payment_id: str, topic: str = PAYMENTS) -> int:
    """How many records of a topic name this payment so; of metrics those of the intake."""
    found = [orjson.loads(one.value() or b"") for one in committed(system.settings, topic)]
    ours = [one for one in found if one["payment_id"] == payment_id]
    return sum(one.get("status", "requested") == "requested" for one in ours)


def charges(system: System, event: PaymentEvent) -> int:
    """How many charges the gateway holds under this payment's key."""
    data = system.gateway.get(f"/v1/charges/search?ref={gateway_key(event)}")["data"]
    assert isinstance(data, list)
    return len(data)


def test_a_payment_is_accepted_charged_then_replayed(system: System) -> None:
    """202, then 200 with the stored outcome from either worker; one event, one metric, one charge."""
    first = pay(system.worker, "p-once", "alice")
    assert (202, "accepted") == (first.status, first.json()["status"])
    for worker in system.workers:
        answer = repeated(worker, "p-once", "alice")
        assert (200, "true") == (answer.status, answer.headers["Idempotent-Replayed"])
        stored = get(worker.web_port, "/payments/alice/p-once").json()
        told = answer.json()
        assert ("succeeded", True, stored["gateway_ref"]) == (
            told["status"], told["replayed"], told["gateway_ref"],
        )  # fmt: skip
    assert (1, 1) == (events_of(system, "p-once"), events_of(system, "p-once", METRICS))
    sent = PaymentEvent.from_mapping(
        {**fields("alice"), "payment_id": "p-once"}, now_ms=1, default_gateway="simulated"
    )
    assert 1 == charges(system, sent)


def test_fifty_payments_sent_at_once_with_repeats_are_charged_once_each(system: System) -> None:
    """Each four times, at the same moment, half of them to the worker that is not the owner.

    A worker appends a payment once, whoever asks it; two workers that are asked at the same moment may both.
    """
    jobs = [
        partial(pay, system.workers[number % 2], f"many-{number // 4}", f"u{number // 4}")
        for number in range(200)
    ]
    with ThreadPoolExecutor(32) as threads:
        answers = [one.result() for one in [threads.submit(job) for job in jobs]]
    assert {200, 202} >= {one.status for one in answers}
    for number in range(50):
        assert 200 == repeated(system.worker, f"many-{number}", f"u{number}").status
    ids = Counter(
        orjson.loads(one.value() or b"")["payment_id"] for one in committed(system.settings, PAYMENTS)
    )
    many = {name: count for name, count in ids.items() if "many-" in name}
    assert {f"many-{number}" for number in range(50)} == set(many)
    assert {1, 2} >= set(many.values())
    for number in range(50):
        sent = payment(f"u{number}", f"many-{number}", product="gift")
        assert 1 == charges(system, sent)


def test_a_decline_is_told_as_a_final_outcome(system: System) -> None:
    """200: the outcome is known, and it is no success."""
    pay(system.worker, "p-no", "bob", payment_method="pm_card_declined")
    answer = repeated(system.workers[1], "p-no", "bob", payment_method="pm_card_declined")
    assert (200, "declined") == (answer.status, answer.json()["status"])


def test_another_payment_under_the_same_key_is_422(system: System) -> None:
    """Where the first was appended at once, anywhere as soon as it is committed; nothing is appended."""
    pay(system.worker, "p-key", "carol")
    assert 422 == pay(system.worker, "p-key", "carol", amount_minor=1000).status
    repeated(system.worker, "p-key", "carol")
    for worker in system.workers:
        answer = pay(worker, "p-key", "carol", amount_minor=1000)
        assert (422, "idempotency_mismatch") == (answer.status, answer.json()["error"])
    assert 1 == events_of(system, "p-key")


def test_a_business_ref_that_is_taken_is_409(system: System) -> None:
    """The answer names the charge that holds it."""
    repeated(system.worker, "p-sub", "dora", business_ref="sub:1")
    answer = pay(system.worker, "p-sub-2", "dora", business_ref="sub:1")
    assert (409, "p-sub") == (answer.status, answer.json()["conflicts_with"])
    assert 0 == events_of(system, "p-sub-2")


def test_an_old_payment_is_410(system: System) -> None:
    """Older than the payments that are remembered: it may have been charged."""
    answer = pay(system.worker, "p-old", "eve", requested_at=1_600_000_000_000)
    assert (410, "expired") == (answer.status, answer.json()["error"])


@pytest.mark.parametrize(
    ("key", "body", "reason"),
    [
        (None, fields("u1"), "missing_key"),
        ("p1", {**fields("u1"), "payment_id": "p2"}, "key_mismatch"),
        ("p1", [], "not_an_object"),
        ("p 1", fields("u1"), "bad_id"),
        ("p1", fields("u1", amount_minor=-1), "bad_amount"),
        ("p1", fields("u1", payment_method="4242 4242 4242 4242"), "card_number"),
        ("p1", fields("u1", gateway="stripe"), "gateway_not_configured"),
        ("p1", {"user_id": "u1"}, "missing_field"),
    ],
)
def test_what_is_no_payment_is_400(system: System, key: str | None, body: object, reason: str) -> None:
    """With a code, without a card number; nothing is appended."""
    headers = {} if key is None else {"Idempotency_Key": key}
    answer = post(system.worker.web_port, "/payments", orjson.dumps(body), **headers)
    assert (400, reason) == (answer.status, answer.json()["error"])
    assert b"4242" not in answer.body


def test_a_key_in_quotes_is_the_same_key(system: System) -> None:
    """As the header's draft wants it."""
    assert 202 == pay(system.worker, '"p-quoted"', "finn").status
    assert 200 == repeated(system.worker, "p-quoted", "finn").status


def test_a_body_that_is_too_large_is_413(system: System) -> None:
    """Announced or not."""
    body = b" " * 70_000
    assert 413 == post(system.worker.web_port, "/payments", body, Idempotency_Key="p1").status
    assert 405 == get(system.worker.web_port, "/payments").status


def raw(worker: WorkerProcess, headers: bytes, body: bytes) -> bytes:
    """The first line of the answer to a request that no client library would send."""
    head = b"POST /payments HTTP/1.1\r\nHost: x\r\nConnection: close\r\n" + headers + b"\r\n\r\n"
    with socket.create_connection(("127.0.0.1", worker.web_port), timeout=60) as connection:
        connection.sendall(head + body)
        with connection.makefile("rb") as answer:
            return answer.readline().strip()


@pytest.mark.parametrize(
    ("headers", "body"),
    [
        (b"Idempotency-Key: \xff\xfe\r\nAuthorization: \xff", b"{}"),
        (b"Idempotency-Key: p1\r\nContent-Encoding: gzip", b"not compressed"),
        (b"Idempotency-Key: p1\r\nContent-Encoding: br", b"not compressed"),
        (b"Content-Encoding: identity\r\nContent-Encoding: gzip", gzip.compress(b" " * 10**6) * 100),
    ],
)
def test_headers_that_no_library_sends_are_400(system: System, headers: bytes, body: bytes) -> None:
    """Bytes that are no text; a body that is not what its header says."""
    given = headers + b"\r\nContent-Length: %d" % len(body)
    assert b"400" == raw(system.worker, given, body).split()[1]


def test_a_proxied_payment_is_refused_without_a_token(system: System) -> None:
    """A forwarding header is never loopback."""
    body = orjson.dumps(fields("u1"))
    headers = {"Idempotency_Key": "p1", "X_Forwarded_For": "127.0.0.1"}
    answer = post(system.worker.web_port, "/payments", body, **headers)
    assert 401 == answer.status


def test_the_answer_says_whether_the_owner_was_asked(system: System) -> None:
    """Accepted elsewhere: `checked` true. Accepted by the owner itself: nothing to say."""
    user = next(
        user for user in (f"c{number}" for number in range(100))
        if partition_of(user.encode(), PARTITIONS) in assigned(system.workers[1])
    )  # fmt: skip
    elsewhere, owner = (pay(worker, f"p-{worker.name}", user) for worker in system.workers)
    assert (202, True) == (elsewhere.status, elsewhere.json()["checked"])
    assert (202, False) == (owner.status, "checked" in owner.json())


def test_a_worker_that_is_asked_appends_nothing(system: System) -> None:
    """200 with null for what it does not know, the answer for what it does; 503 where it cannot know."""
    pay(system.worker, "p-asked", "gina")
    assert 200 == repeated(system.worker, "p-asked", "gina").status
    new, known = (payment("gina", name, product="gift").to_bytes() for name in ("p-new", "p-asked"))
    owner, other = system.workers
    if partition_of(b"gina", PARTITIONS) not in assigned(owner):
        owner, other = other, owner
    said = [post(worker.web_port, QUESTIONS, new) for worker in (owner, other)]
    assert [(200, None), (503, "recovering")] == [
        (one.status, one.json().get("answer", one.json().get("error"))) for one in said
    ]
    answer = post(owner.web_port, QUESTIONS, known).json()["answer"]
    assert (200, "succeeded", "true") == (
        answer["status"], answer["body"]["status"], answer["headers"]["Idempotent-Replayed"],
    )  # fmt: skip
    assert (400, 401) == (
        post(owner.web_port, QUESTIONS, b"{}").status, post(owner.web_port, QUESTIONS, new, Via="x").status,
    )  # fmt: skip
    assert 0 == events_of(system, "p-new")


def test_a_payment_that_an_older_worker_passes_on_is_taken_by_whoever_gets_it(system: System) -> None:
    """A rolling upgrade: the owner answers as ever; one that is not appends, instead of sending it back."""
    for number, worker in enumerate(system.workers):
        body = orjson.dumps(fields("hugo"))
        answer = post(
            worker.web_port, "/payments", body, Idempotency_Key=f"p-hop-{number}", X_Exactly_Once_Hop="1"
        )
        owner = partition_of(b"hugo", PARTITIONS) in assigned(worker)
        assert (202, None if owner else False) == (answer.status, answer.json().get("checked"))
        assert 1 == events_of(system, f"p-hop-{number}")


def test_a_burst_of_one_user_is_told_to_come_again(system: System) -> None:
    """Nothing is appended, by whichever worker; a neighbour is taken; later there is room."""
    partition = partition_of(b"burst", PARTITIONS)
    owner, other = system.workers
    if partition not in assigned(owner):
        owner, other = other, owner
    near = next(u for u in (f"n{n}" for n in range(100)) if partition_of(u.encode(), PARTITIONS) == partition)
    system.gateway.faults(latency_ms=4000)
    try:
        burst = [(name, pay(owner, name, "burst")) for name in (f"p-burst-{n}" for n in range(80))]
        refused = [(name, answer) for name, answer in burst if answer.status != 202]
        name, answer = refused[-1]
        assert (429, "too_many_of_user", "1") == (
            answer.status, answer.json()["error"], answer.headers["Retry-After"],
        )  # fmt: skip
        tries = (f"p-other-{n}" for n in count())
        wait_until(lambda: 429 == pay(other, next(tries), "burst").status)  # unless the owner was too slow
        assert 202 == pay(owner, "p-near", near).status
        assert 0 == events_of(system, name)
    finally:
        system.gateway.faults()
    wait_until(lambda: 202 == pay(owner, name, "burst").status)
    wait_until(lambda: 200 == pay(owner, name, "burst").status)
    assert 1 == charges(system, payment("burst", name, product="gift"))


def test_with_a_token_every_payment_needs_it(broker: str, tmp_path: Path, unique_name: str) -> None:
    """The question to the owner carries it; once the owner is killed payments are appended unasked."""
    options: dict[str, Any] = {"workers": 2, "partitions": PARTITIONS, "BILLING_API_TOKEN": TOKEN, **CALM}
    with System(broker, tmp_path, unique_name, **options) as system:
        be_patient(system)
        system.start()
        wait_until(lambda: all(len(assigned(worker)) == PARTITIONS // 2 for worker in system.workers))

        def send(user_id: str, **headers: str) -> Answer:
            body = orjson.dumps(fields(user_id))
            return post(system.worker.web_port, "/payments", body, Idempotency_Key="p1", **headers)

        def is_replayed(user_id: str) -> bool:
            return 200 == send(user_id, **bearer).status

        bearer = {"Authorization": f"Bearer {TOKEN}"}
        away = assigned(system.workers[1])
        users = [f"u{n}" for n in range(20)]
        theirs = next(u for u in users if partition_of(u.encode(), PARTITIONS) in away)
        assert {401} == {send(user).status for user in users}
        assert 401 == send("u1", Authorization="Bearer wrong").status
        first = [send(user, **bearer) for user in users]
        assert {202} == {answer.status for answer in first}
        assert {True, None} == {answer.json().get("checked") for answer in first}
        wait_until(lambda: is_replayed(theirs))
        system.workers[1].kill()
        again = send(theirs, **bearer)
        assert (202, False) == (again.status, again.json()["checked"])
        wait_until(lambda: is_replayed(theirs))
        assert 1 == charges(system, payment(theirs, "p1", product="gift"))


def test_while_the_broker_is_frozen_a_payment_is_503_then_it_is_there_once(
    tmp_path: Path, unique_name: str
) -> None:
    """Not known whether it was appended; the same key brings one event, one charge. So with a webhook."""
    options: dict[str, Any] = {
        "BILLING_STRIPE_API_KEY": "sk_test_x", "BILLING_STRIPE_WEBHOOK_SECRETS": SECRET,
        "BILLING_DEFAULT_GATEWAY": "simulated",
    }  # fmt: skip
    message = orjson.dumps(stripe_event("charge.succeeded", stripe_charge()))

    def webhook() -> Answer:
        signature = stripe_signature(message)
        return post(lab.worker.web_port, "/webhooks/stripe", message, Stripe_Signature=signature)

    with (
        LocalBroker(tmp_path / "kafka", port=0) as kafka,
        System(kafka.bootstrap, tmp_path, unique_name, partitions=1, **options) as lab,
    ):
        lab.start()
        assert 200 == repeated(lab.worker, "p-before", "alice").status
        kafka.pause()
        answers = [pay(lab.worker, "p-frozen", "alice"), webhook()]
        kafka.resume()
        assert {(503, "1")} == {(one.status, one.headers["Retry-After"]) for one in answers}
        wait_until(lambda: pay(lab.worker, "p-frozen", "alice").status == 200)
        wait_until(lambda: webhook().status == 200)
        sent = payment("alice", "p-frozen", product="gift")
        assert (1, 1) == (events_of(lab, "p-frozen"), charges(lab, sent))
        told = [orjson.loads(one.value() or b"") for one in committed(lab.settings, GATEWAY_EVENTS)]
        assert {"evt_1Nabc"} == {one["event_id"] for one in told}


def test_any_bytes_are_refused_in_words(system: System) -> None:
    """Never a 500, never an event: random bytes, and JSON of every shape, with any key."""
    before = len(committed(system.settings, PAYMENTS))
    scalars = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text()
    json = st.recursive(scalars, lambda s: st.lists(s) | st.dictionaries(st.text(), s), max_leaves=10)
    keys = st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=1, max_size=70)

    @examples(max_examples=300, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    @given(st.binary(max_size=300) | json.map(lambda one: _dumped(one)), keys)
    def refused(body: bytes, key: str) -> None:
        answer = post(system.worker.web_port, "/payments", body, Idempotency_Key=key)
        assert 400 == answer.status
        assert {"type", "title", "status", "error", "detail"} == set(answer.json())

    refused()
    assert before == len(committed(system.settings, PAYMENTS))


def _dumped(one: object) -> bytes:
    try:
        return orjson.dumps(one)
    except (TypeError, ValueError):  # an integer beyond 64 bit, half a surrogate pair
        return b"?"


def markers(system: System) -> int:
    """How many ends of transactions stand on `payments`, over all partitions."""
    log, topic = CommittedLog(system.settings), system.settings.topic(PAYMENTS)
    ends = log.ends((topic, partition) for partition in range(PARTITIONS))
    return sum(end for _, end in ends.values()) - len(committed(system.settings, PAYMENTS))


async def test_many_clients_share_transactions(system: System) -> None:
    """Hundreds of requests at once are all accepted, in far fewer transactions than payments."""
    before = markers(system)
    url = f"http://127.0.0.1:{system.worker.web_port}/payments"
    async with aiohttp.ClientSession() as session:

        async def one(number: int) -> int:
            headers = {"Idempotency-Key": f"share-{number}"}
            async with session.post(url, json=fields(f"s{number}"), headers=headers) as answer:
                return answer.status

        statuses = await asyncio.gather(*(one(number) for number in range(300)))
    assert {202} == set(statuses)
    assert markers(system) - before < 150  # one each would be 300
