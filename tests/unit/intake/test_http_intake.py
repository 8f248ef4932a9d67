"""What a payment over HTTP is answered, by what is known of it and by what came of its append."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import Any

import pytest
from support.system import payment

from streamsocial_billing.domain.decision import DEDUP_RETENTION_MS, decide
from streamsocial_billing.domain.events import PaymentEvent
from streamsocial_billing.domain.foreign_fields import BadInput
from streamsocial_billing.domain.known import Received
from streamsocial_billing.domain.outcomes import Called, Verdict
from streamsocial_billing.domain.payment_entry import first_entry
from streamsocial_billing.intake import http
from streamsocial_billing.intake.http import REMEMBER_S, HttpIntake, read_payment
from streamsocial_billing.intake.http_replies import Reply
from streamsocial_billing.intake.micro_batcher import MicroBatcher
from streamsocial_billing.intake.producer import IntakeOutcomeUnknown
from streamsocial_billing.intake.public_fields import PAYMENT_FIELDS
from streamsocial_billing.kafka.committed import KafkaProblem
from streamsocial_billing.payments.retention import smaller
from streamsocial_billing.settings import Settings
from tables.payments import Entry, ObservedEntry, is_full

PAYMENT = payment("alice", "p1", business_ref="sub:1")
NOW = PAYMENT.requested_at
Future = asyncio.Future[KafkaProblem | None]


class Lab:
    """An intake over an entry, an append that ends as the test says, a clock that is set."""

    def __init__(self, entry: Entry | None = None, held_by: str | None = None) -> None:
        self.known, self.held_by = entry, held_by
        self.appended: list[PaymentEvent] = []
        self.futures: list[Future] = []
        self.now_s = 0.0
        self.queued = 0
        self.settled: set[str] = set()
        self.intake = HttpIntake(
            self, self._append, lambda: self.now_s, queued=lambda _, most: min(self.queued, most),
            most_of_user=3,
        )  # fmt: skip

    def decide(self, payment: PaymentEvent, *, at_ms: int, appended_ms: int) -> Any:
        """By what is known, as the owner decides."""
        return self._decided(payment, self.known, self.held_by, at_ms)

    def _decided(self, payment: PaymentEvent, known: Entry | None, held_by: str | None, at_ms: int) -> Any:
        return decide(
            payment, known, now_ms=at_ms, appended_ms=at_ms, held_by=held_by,
            dedup_retention_ms=DEDUP_RETENTION_MS, configured_gateways=frozenset({"simulated"}),
        )  # fmt: skip

    def decide_new(self, payment: PaymentEvent, *, at_ms: int) -> Any:
        """As `decide`, of a payment of which nothing is known."""
        return self._decided(payment, None, None, at_ms)

    def entry(self, user_id: str, payment_id: str) -> Entry | None:
        """What is known."""
        return entry("succeeded") if payment_id in self.settled else self.known

    def _append(self, payment: PaymentEvent) -> Future:
        self.appended.append(payment)
        self.futures.append(asyncio.get_running_loop().create_future())
        return self.futures[-1]

    async def send(self, outcome: KafkaProblem | None = None, payment: PaymentEvent = PAYMENT) -> Reply:
        """One request; its append, if there is a new one, ends so."""
        before = len(self.futures)
        asked = asyncio.create_task(self.intake.take(payment, NOW))
        await asyncio.sleep(0)
        for future in self.futures[before:]:
            future.set_result(outcome)
        return await asked


def entry(status: str, reason: str | None = None, payment: PaymentEvent = PAYMENT) -> Entry:
    """What is stored of the payment."""
    received = Received(payment, {"topic": "payments", "partition": 0, "offset": 0}, NOW)
    return first_entry(received, Called(Verdict(status, reason, "ch_1"), "acct", 1), NOW)


@pytest.mark.parametrize("status", ["succeeded", "declined", "failed", "rejected"])
async def test_a_final_payment_is_told_again(status: str) -> None:
    """200 with the mark of a replay; nothing is appended."""
    lab = Lab(entry(status, "because"))
    reply = await lab.send()
    headers = {"Idempotent-Replayed": "true", "Location": "/payments/alice/p1"}
    assert (200, headers, []) == (reply.status, reply.headers, lab.appended)
    assert (status, "because", True, "ch_1", 1) == tuple(
        reply.body[name] for name in ("status", "reason", "replayed", "gateway_ref", "attempt")
    )


@pytest.mark.parametrize("status", ["unknown", "parked"])
async def test_an_open_payment_is_202_without_another_event(status: str) -> None:
    """Its outcome comes by itself."""
    lab = Lab(entry(status, "outcome_unknown"))
    reply = await lab.send()
    assert (202, status, []) == (reply.status, reply.body["status"], lab.appended)


async def test_what_the_gateway_told_of_first_is_appended() -> None:
    """The event adopts it: without the event there would be no result."""
    seen: ObservedEntry = {
        "status": "observed", "seen": "succeeded", "reason": None, "action": "charge", "gateway": "simulated",
        "gateway_account": "acct", "gateway_ref": "ch_1", "amount_minor": 999, "currency": "EUR",
        "soft": False, "observed_at": NOW,
    }  # fmt: skip
    lab = Lab(seen)
    assert (202, [PAYMENT]) == ((await lab.send()).status, lab.appended)


@pytest.mark.parametrize(
    ("lab", "payment_", "status", "error"),
    [
        (partial(Lab, entry("succeeded")), payment("alice", "p1"), 422, "idempotency_mismatch"),
        (partial(Lab, held_by="p0"), PAYMENT, 409, "duplicate_business_ref"),
        (Lab, payment("alice", "p1", requested_at=1), 410, "expired"),
        (Lab, payment("alice", "p1", gateway="stripe"), 400, "gateway_not_configured"),
    ],
)
async def test_a_refusal_appends_nothing(lab: Any, payment_: PaymentEvent, status: int, error: str) -> None:
    """Each by the reason of the decision."""
    made = lab()
    reply = await made.send(payment=payment_)
    assert (status, error, []) == (reply.status, reply.body["error"], made.appended)
    assert ("p0" if status == 409 else None) == reply.body.get("conflicts_with")
    assert (status in (409, 422)) == ("reason" in reply.body)


async def test_a_mismatch_names_the_fields_that_differ_not_their_values() -> None:
    """Of the stored payment, of one on its way; a token is named, never shown."""
    other = payment("alice", "p1", business_ref="sub:1", amount_minor=1, payment_method="pm_secret")
    stored, on_its_way = Lab(entry("succeeded")), Lab()
    await on_its_way.send()
    for lab in (stored, on_its_way):
        reply = await lab.send(payment=other)
        assert (422, ["amount_minor", "payment_method"]) == (reply.status, reply.body["differs"])
        assert "amount_minor and payment_method differ from the first payment" in reply.body["reason"]
        assert "pm_" not in str(reply.body)


async def test_a_mismatch_with_a_small_entry_names_what_is_no_longer_kept() -> None:
    """After 35 days the method is known by the fingerprint alone: that is all that can be said."""
    first = entry("succeeded")
    assert is_full(first)
    other = payment("alice", "p1", payment_method="pm_2", business_ref="sub:1")
    reply = await Lab(smaller(first)).send(payment=other)
    assert (422, []) == (reply.status, reply.body["differs"])
    assert "payment_method differs from the first payment under this key" == reply.body["reason"]


async def test_a_refused_business_ref_names_the_payment_that_holds_it() -> None:
    """In words, and in `conflicts_with`."""
    reply = await Lab(held_by="p0").send()
    assert (409, "payment p0 holds this business_ref") == (reply.status, reply.body["reason"])


@pytest.mark.parametrize("known", [None, entry("succeeded"), entry("unknown", "outcome_unknown")])
async def test_every_answer_about_a_payment_has_the_same_fields(known: Entry | None) -> None:
    """Accepted, open, final: those of a result, with the place to read it."""
    reply = await Lab(known).send()
    assert (set(PAYMENT_FIELDS), "/payments/alice/p1") == (set(reply.body), reply.headers["Location"])
    assert PAYMENT.requested_at == reply.body["requested_at"]
    assert (known is not None) == reply.body["replayed"]


async def test_repeats_wait_for_the_one_append() -> None:
    """Three requests at once, one event; another payment under the key meanwhile is refused."""
    lab = Lab()
    asked = [asyncio.create_task(lab.intake.take(PAYMENT, NOW)) for _ in range(3)]
    await asyncio.sleep(0)
    assert 422 == (await lab.intake.take(payment("alice", "p1", amount_minor=1), NOW)).status
    lab.futures[0].set_result(None)
    assert [202, 202, 202] == [reply.status for reply in await asyncio.gather(*asked)]
    assert [PAYMENT] == lab.appended


async def test_an_appended_payment_without_an_entry_can_be_appended_again_later() -> None:
    """Its repeats are kept off while the agent may be at it, not for ever: the first may be a dead letter."""
    lab = Lab()
    for _ in range(2):
        assert 202 == (await lab.send()).status
    assert 1 == len(lab.appended)
    lab.now_s = REMEMBER_S
    assert 202 == (await lab.send()).status
    assert 2 == len(lab.appended)


async def test_what_is_remembered_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """The oldest go first; their repeats would be replayed."""
    monkeypatch.setattr(http, "REMEMBER", 2)
    lab = Lab()
    for number in (1, 2, 3, 1):
        await lab.send(payment=payment("alice", f"p{number}"))
    assert ["p1", "p2", "p3", "p1"] == [one.payment_id for one in lab.appended]


@pytest.mark.parametrize(
    ("problem", "error"),
    [(IntakeOutcomeUnknown("?"), "outcome_unknown"), (KafkaProblem("no broker"), "not_appended")],
)
async def test_a_failed_append_is_503_and_its_repeat_another_append(
    problem: KafkaProblem, error: str
) -> None:
    """With Retry-After; whether it is on the log or not, the same key makes the repeat safe."""
    lab = Lab()
    reply = await lab.send(problem)
    assert (503, error, "1") == (reply.status, reply.body["error"], reply.headers["Retry-After"])
    assert 202 == (await lab.send()).status
    assert 2 == len(lab.appended)


async def test_an_append_that_takes_too_long_is_503_and_its_repeat_waits_for_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """One event all the same."""
    monkeypatch.setattr(http, "WAIT_S", 0.01)
    lab = Lab()
    assert "outcome_unknown" == (await lab.intake.take(PAYMENT, NOW)).body["error"]
    lab.futures[0].set_result(None)
    assert 202 == (await lab.intake.take(PAYMENT, NOW)).status
    assert 1 == len(lab.appended)


async def test_a_failure_that_came_too_late_for_its_request_is_not_told_to_the_repeat(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The repeat is appended at once, instead of being told what is over."""
    lab = Lab()
    with monkeypatch.context() as hurried:
        hurried.setattr(http, "WAIT_S", 0.01)
        assert 503 == (await lab.intake.take(PAYMENT, NOW)).status
    lab.futures[0].set_result(KafkaProblem("nothing appended"))
    assert (202, 2) == ((await lab.send()).status, len(lab.appended))


async def test_who_asks_for_another_worker_gets_no_append() -> None:
    """Nothing known: None. Known, or on its way here: the answer."""
    lab = Lab()
    assert (None, []) == (await lab.intake.known_or_on_its_way(PAYMENT, NOW), lab.appended)
    await lab.send()
    reply = await lab.intake.known_or_on_its_way(PAYMENT, NOW)
    assert reply is not None
    assert (202, "accepted", 1) == (reply.status, reply.body["status"], len(lab.appended))
    other = await lab.intake.known_or_on_its_way(payment("alice", "p1", amount_minor=1), NOW)
    assert other is not None
    assert 422 == other.status
    known = await Lab(entry("declined", "insufficient_funds")).intake.known_or_on_its_way(PAYMENT, NOW)
    assert known is not None
    assert (200, "declined") == (known.status, known.body["status"])


async def test_an_append_under_way_is_not_answered_for_before_it_is_confirmed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """An asker that would be told "accepted" too early loses the payment if this append fails."""
    monkeypatch.setattr(http, "ASKED_WAIT_S", 0.01)
    lab = Lab()
    asked = asyncio.create_task(lab.intake.take(PAYMENT, NOW))
    await asyncio.sleep(0)
    assert await lab.intake.known_or_on_its_way(PAYMENT, NOW) is None
    lab.futures[0].set_result(KafkaProblem("nothing appended"))
    assert 503 == (await asked).status
    assert await lab.intake.known_or_on_its_way(PAYMENT, NOW) is None


@pytest.mark.parametrize(
    ("payment_", "status", "error"),
    [
        (PAYMENT, 202, None),
        (payment("alice", "p1", requested_at=1), 202, None),
        (payment("alice", "p1", gateway="stripe"), 400, "gateway_not_configured"),
    ],
)
async def test_without_its_owner_a_payment_is_refused_only_for_what_it_says_itself(
    payment_: PaymentEvent, status: int, error: str | None
) -> None:
    """400 needs no owner; whether it is too old or known is for the agent, who reads the entry."""
    lab = Lab(entry("succeeded"), held_by="p0")
    asked = asyncio.create_task(lab.intake.append_unchecked(payment_, NOW))
    await asyncio.sleep(0)
    for future in lab.futures:
        future.set_result(None)
    reply = await asked
    assert (status, error) == (reply.status, reply.body.get("error"))
    assert (None if error else False) == reply.body.get("checked")
    assert len(lab.appended) == (0 if error else 1)


@pytest.mark.parametrize("rest", [b"}", b',"payment_id":null}', b',"payment_id":"p1"}'])
def test_the_key_is_the_payment_id(rest: bytes) -> None:
    """The body may leave it out."""
    fields = b'{"user_id":"alice","product":"gift","amount_minor":1,"currency":"EUR","payment_method":"pm"'
    body = fields + rest
    settings = Settings(default_gateway="stripe")
    assert "p1" == read_payment("p1", body, NOW, settings).payment_id
    assert "stripe" == read_payment('"p1"', body, NOW, settings).gateway
    with pytest.raises(BadInput):
        read_payment('"p1', body, NOW, settings)


async def test_what_waits_while_the_thread_works_is_done_at_once() -> None:
    """In the order in which it came, `most` at a time; after the end nothing is taken."""
    batches: list[list[int]] = []
    ended: list[bool] = []

    def work(numbers: Any) -> list[KafkaProblem | None]:
        batches.append(list(numbers))
        if numbers[0] == 0:
            raise ValueError("broken")
        return [None] * len(numbers)

    batcher = MicroBatcher("test", work, lambda: ended.append(True), most=3)
    assert isinstance(await batcher.add(0), KafkaProblem)
    done = await asyncio.gather(*(batcher.add(number) for number in range(1, 10)))
    assert [None] * 9 == done
    assert list(range(10)) == [number for batch in batches for number in batch]
    assert max(map(len, batches)) <= 3
    await batcher.close()
    assert [True] == ended
    assert isinstance(await batcher.add(10), KafkaProblem)


def one_of(user: str, number: int) -> PaymentEvent:
    """A payment of its own."""
    return payment(user, f"n{number}")


async def test_a_user_of_whom_many_wait_is_told_to_come_again() -> None:
    """429 with Retry-After, nothing is appended; other users, repeats of what waits are served as ever."""
    lab = Lab()
    for number in range(3):
        assert 202 == (await lab.send(payment=one_of("alice", number))).status
    reply = await lab.send(payment=one_of("alice", 3))
    assert (429, "too_many_of_user", "1") == (reply.status, reply.body["error"], reply.headers["Retry-After"])
    assert 202 == (await lab.send(payment=one_of("alice", 2))).status
    assert 202 == (await lab.send(payment=one_of("bob", 3))).status
    assert ["n0", "n1", "n2", "n3"] == [one.payment_id for one in lab.appended]


async def test_who_has_settled_payments_has_room_for_as_many() -> None:
    """What has an entry waits no more."""
    lab = Lab()
    for number in range(3):
        await lab.send(payment=one_of("alice", number))
    lab.settled = {"n0", "n2"}
    for number, status in ((3, 202), (4, 202), (5, 429)):
        assert status == (await lab.send(payment=one_of("alice", number))).status


async def test_what_other_intakes_sent_counts_as_well() -> None:
    """Events of the user that this worker has in its queue; the owner says so to a worker that asks, too."""
    lab = Lab()
    lab.queued = 3
    assert (429, []) == ((await lab.send()).status, lab.appended)
    asked = await lab.intake.known_or_on_its_way(PAYMENT, NOW)
    assert asked is not None
    assert 429 == asked.status
    lab.queued = 2
    assert None is await lab.intake.known_or_on_its_way(PAYMENT, NOW)


async def test_an_append_that_failed_leaves_no_trace_in_the_count() -> None:
    """Nothing of it waits anywhere."""
    lab = Lab()
    for number in range(5):
        assert 503 == (await lab.send(KafkaProblem("down"), one_of("alice", number))).status
    assert 202 == (await lab.send(payment=one_of("alice", 9))).status


async def test_what_was_forgotten_counts_no_more() -> None:
    """After a minute, or where it is known elsewhere."""
    lab = Lab()
    for number in range(3):
        await lab.send(payment=one_of("alice", number))
    lab.now_s = REMEMBER_S
    assert None is await lab.intake.known_or_on_its_way(one_of("alice", 3), NOW)
    assert 202 == (await lab.send(payment=one_of("alice", 3))).status
