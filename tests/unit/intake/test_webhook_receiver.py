"""What a gateway is answered, and what is appended."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Mapping
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.webhook_payloads import (
    CHARGE_KEY,
    PAID,
    PAYPAL_HEADERS,
    SECRET,
    USER,
    paypal_capture,
    paypal_case,
    paypal_event,
    paypal_refund,
    stripe_charge,
    stripe_dispute,
    stripe_event,
    stripe_refund,
    stripe_signature,
)

from streamsocial_billing.domain.gateway_calls import Absent, Ambiguous, NotSent, Owner
from streamsocial_billing.domain.gateway_events import GatewayEvent
from streamsocial_billing.intake.http_replies import Reply
from streamsocial_billing.intake.webhooks.receiver import (
    MAX_AT_ONCE,
    Busy,
    PayPalSource,
    Receiver,
    StripeSource,
)
from streamsocial_billing.kafka.committed import KafkaProblem

OURS = Owner(USER, PAID, CHARGE_KEY)


class Client:
    """A gateway's client that answers as it is told."""

    def __init__(self, owner: Any = OURS, verified: Any = True) -> None:
        self.owner, self.verified = owner, verified
        self.asked: list[object] = []
        self.go_on = asyncio.Event()
        self.go_on.set()

    async def start(self) -> None:
        """Nothing to open."""

    async def owner_of(self, charge_ref: str, *, timeout_s: float) -> Any:
        self.asked.append(charge_ref)
        return self.owner

    async def verify_webhook(
        self, webhook_id: str, question: Mapping[str, str], body: bytes, *, timeout_s: float
    ) -> Any:
        self.asked.append((webhook_id, question["transmission_id"], body))
        await self.go_on.wait()
        return self.verified


class Lab:
    """A receiver whose records and counts are kept."""

    def __init__(self, client: Client, problem: KafkaProblem | None = None) -> None:
        self.records: list[GatewayEvent] = []
        self.counts: Counter[tuple[str, str]] = Counter()
        self._problem = problem
        self.receiver = Receiver(
            {"stripe": StripeSource((SECRET,), client), "paypal": PayPalSource("WEB1", client)},
            self._append, lambda gateway, outcome: self.counts.update([(gateway, outcome)]),
        )  # fmt: skip

    def _append(self, event: GatewayEvent) -> asyncio.Future[KafkaProblem | None]:
        future: asyncio.Future[KafkaProblem | None] = asyncio.get_running_loop().create_future()
        self.records.append(event)
        future.set_result(self._problem)
        return future

    async def stripe(self, message: object) -> Reply:
        body = orjson.dumps(message)
        headers = {"Stripe-Signature": stripe_signature(body)}
        return await self.receiver.receive("stripe", headers, body)

    async def paypal(self, message: object) -> Reply:
        return await self.receiver.receive("paypal", PAYPAL_HEADERS, orjson.dumps(message))


async def test_a_charge_of_ours_is_appended_as_mapped() -> None:
    """Its own words name its owner: nobody is asked."""
    lab = Lab(client := Client())
    reply = await lab.stripe(stripe_event("charge.succeeded", stripe_charge()))
    assert (200, [], {("stripe", "appended"): 1}) == (reply.status, client.asked, lab.counts)
    expected = GatewayEvent(
        event_id="evt_1Nabc", gateway="stripe", kind="charge", status="succeeded", gateway_ref="ch_1",
        ref=CHARGE_KEY, user_id=USER, payment_id=PAID, amount_minor=999, currency="EUR",
        occurred_at=1_764_600_000_000,
    )  # fmt: skip
    assert [expected] == lab.records


@pytest.mark.parametrize(
    ("kind", "it"),
    [
        ("charge.dispute.created", stripe_dispute()),
        ("refund.created", stripe_refund(metadata={})),
        ("refund.created", stripe_refund(metadata={"user_id": "mallory"})),
    ],
)
async def test_what_was_made_at_the_gateway_belongs_to_its_charges_user(kind: str, it: Any) -> None:
    """The charge is asked for first; the payment that we ordered is none."""
    lab = Lab(client := Client())
    assert 200 == (await lab.stripe(stripe_event(kind, it))).status
    assert ["ch_1"] == client.asked
    assert [(USER, None, None, PAID)] == [
        (one.user_id, one.payment_id, one.ref, one.charge_id) for one in lab.records
    ]


@pytest.mark.parametrize("why", [NotSent("unreachable"), Ambiguous("timeout")])
async def test_a_charge_that_cannot_be_asked_for_is_503(why: object) -> None:
    """The gateway sends it again; nothing is guessed."""
    lab = Lab(Client(owner=why))
    reply = await lab.stripe(stripe_event("charge.dispute.created", stripe_dispute()))
    assert (503, "1") == (reply.status, reply.headers["Retry-After"])
    assert ([], {("stripe", "unavailable"): 1}) == (lab.records, lab.counts)


@pytest.mark.parametrize("owner", [Absent(), Owner(USER, PAID, "ss1_other")])
async def test_a_foreign_charge_is_taken_and_left(owner: object) -> None:
    """Another shop on the same account: 2xx, counted."""
    lab = Lab(Client(owner=owner))
    assert 200 == (await lab.stripe(stripe_event("charge.dispute.created", stripe_dispute()))).status
    foreign = stripe_charge(metadata={}, amount=0, currency="xxx")
    assert 200 == (await lab.stripe(stripe_event("charge.succeeded", foreign))).status
    assert ([], {("stripe", "foreign"): 2}) == (lab.records, lab.counts)


async def test_a_refund_that_names_no_charge_is_foreign() -> None:
    """Of a PaymentIntent of somebody else's; the adapter makes none."""
    lab = Lab(client := Client())
    message = stripe_event("refund.created", stripe_refund(charge=None, metadata={}))
    assert 200 == (await lab.stripe(message)).status
    assert ([], {("stripe", "foreign"): 1}) == (client.asked, lab.counts)


async def test_a_type_that_is_not_mapped_is_taken_and_counted() -> None:
    """2xx, or the gateway would send it for days."""
    lab = Lab(Client())
    assert 200 == (await lab.stripe(stripe_event("invoice.paid", {"id": "in_1"}))).status
    assert ([], {("stripe", "ignored"): 1}) == (lab.records, lab.counts)


@pytest.mark.parametrize(
    "message",
    [
        [], stripe_event("charge.succeeded", stripe_charge(amount=9.99)),
        stripe_event("charge.succeeded", stripe_charge(amount=0)),
        stripe_event("charge.succeeded", stripe_charge(currency="xxx")),
        stripe_event("charge.succeeded", stripe_charge(status="new")),
        stripe_event("charge.succeeded", stripe_charge(), id="evt 1"),
        stripe_event("charge.succeeded", stripe_charge(), created="now"),
        stripe_event("charge.dispute.closed", stripe_dispute()),
    ],
)  # fmt: skip
async def test_a_signed_message_that_is_not_readable_is_422(message: object) -> None:
    """Not taken: the gateway shows it while somebody looks."""
    lab = Lab(Client())
    assert 422 == (await lab.stripe(message)).status
    assert ([], {("stripe", "unreadable"): 1}) == (lab.records, lab.counts)


NOT_OURS: dict[str, Any] = {"metadata": {}}
FOREIGN_WORDS: dict[str, Any] = {"custom_id": "order-1", "invoice_id": "WC-123"}
UNKNOWN_STATUSES: list[tuple[str, dict[str, Any]]] = [
    ("stripe", stripe_event("charge.succeeded", stripe_charge(status="new", **NOT_OURS))),
    ("stripe", stripe_event("charge.succeeded", stripe_charge(currency=None, **NOT_OURS))),
    ("stripe", stripe_event("charge.refunded", stripe_charge(refunds={"data": [{"status": "new"}]}))),
    ("stripe", stripe_event("refund.updated", stripe_refund(status="new", **NOT_OURS))),
    ("stripe", stripe_event("refund.updated", stripe_refund(status="new", charge=None, **NOT_OURS))),
    ("stripe", stripe_event("charge.dispute.closed", stripe_dispute(status="new"))),
    ("stripe", stripe_event("charge.dispute.created", stripe_dispute(id=None, amount="much"))),
    ("paypal", paypal_event("PAYMENT.CAPTURE.REFUNDED", paypal_refund(status="NEW", **FOREIGN_WORDS))),
    ("paypal", paypal_event("PAYMENT.CAPTURE.COMPLETED", paypal_capture(amount=None, **FOREIGN_WORDS))),
    ("paypal", paypal_event("PAYMENT.REFUND.FAILED", paypal_refund(id=None, **FOREIGN_WORDS))),
    ("paypal", paypal_event("CUSTOMER.DISPUTE.CREATED", paypal_case(dispute_amount={"value": "x"}))),
    ("paypal", paypal_event("CUSTOMER.DISPUTE.CREATED", paypal_case(), create_time="now")),
]


@pytest.mark.parametrize(("gateway", "message"), UNKNOWN_STATUSES)
async def test_row_what_is_not_ours_need_not_be_readable(gateway: str, message: dict[str, Any]) -> None:
    """An account shared with another shop: 200 and counted, whatever the object holds."""
    lab = Lab(Client(owner=Owner("them", "order-1", "WC-123")))
    reply = await (lab.stripe(message) if gateway == "stripe" else lab.paypal(message))
    assert (200, {"outcome": "foreign"}) == (reply.status, reply.body)
    assert ([], {(gateway, "foreign"): 1}) == (lab.records, lab.counts)


@pytest.mark.parametrize(("gateway", "message"), UNKNOWN_STATUSES[5:])
async def test_row_what_is_ours_must_be_readable(gateway: str, message: dict[str, Any]) -> None:
    """The same objects of a charge of ours: 422, so that the gateway shows them."""
    lab = Lab(Client())
    reply = await (lab.stripe(message) if gateway == "stripe" else lab.paypal(message))
    ours = message.get("event_type") != "PAYMENT.CAPTURE.COMPLETED"  # a charge says itself whose it is
    assert (422 if ours else 200) == reply.status


async def test_row_a_dispute_that_was_reinstated_in_part_is_two_records_in_their_order() -> None:
    """First what was withdrawn in all, then what came back in all."""
    rows = [{"amount": -500, "currency": "eur", "fee": 0}, {"amount": 200, "currency": "eur", "fee": 0}]
    it = stripe_dispute(status="lost", amount=500, balance_transactions=rows)
    lab = Lab(Client())
    assert 200 == (await lab.stripe(stripe_event("charge.dispute.closed", it))).status
    assert [("evt_1Nabc", "succeeded", 500), ("evt_1Nabc:returned", "declined", 200)] == [
        (one.event_id, one.status, one.amount_minor) for one in lab.records
    ]
    assert {("stripe", "appended"): 1} == lab.counts


async def test_a_dispute_whose_first_record_is_not_confirmed_appends_no_second() -> None:
    """What came back counts only after what was taken; the gateway sends both again."""
    rows = [{"amount": -500, "currency": "eur"}, {"amount": 500, "currency": "eur"}]
    lab = Lab(Client(), KafkaProblem("down"))
    message = stripe_event("charge.dispute.closed", stripe_dispute(status="won", balance_transactions=rows))
    assert (503, 1) == ((await lab.stripe(message)).status, len(lab.records))


async def test_a_record_that_is_not_confirmed_is_503() -> None:
    """2xx only after the append."""
    lab = Lab(Client(), KafkaProblem("not confirmed"))
    reply = await lab.stripe(stripe_event("charge.succeeded", stripe_charge()))
    assert (503, {("stripe", "unavailable"): 1}) == (reply.status, lab.counts)


async def test_paypal_is_asked_with_the_bytes_as_they_came() -> None:
    """Webhook id, headers, body; then its refund is appended."""
    lab = Lab(client := Client())
    message = paypal_event("PAYMENT.CAPTURE.REFUNDED", paypal_refund())
    assert 200 == (await lab.paypal(message)).status
    assert [("WEB1", PAYPAL_HEADERS["PAYPAL-TRANSMISSION-ID"], orjson.dumps(message))] == client.asked
    assert [("paypal", "refund", 300)] == [(e.gateway, e.kind, e.amount_minor) for e in lab.records]


@pytest.mark.parametrize(
    ("verified", "status"), [(False, 400), (NotSent("auth"), 503), (Ambiguous("x"), 503)]
)
async def test_only_paypals_own_yes_counts(verified: object, status: int) -> None:
    """Its no is 400; no answer is 503, so that it sends again."""
    lab = Lab(Client(verified=verified))
    reply = await lab.paypal(paypal_event("PAYMENT.CAPTURE.REFUNDED", paypal_refund()))
    assert (status, []) == (reply.status, lab.records)


async def test_paypal_is_not_asked_about_what_cannot_be_its_own() -> None:
    """No call for a message without its headers, or that is no JSON object."""
    lab = Lab(client := Client())
    for headers, body in (({}, b"{}"), (PAYPAL_HEADERS, b"[]"), (PAYPAL_HEADERS, b'{},"webhook_id":"x"')):
        assert 400 == (await lab.receiver.receive("paypal", headers, body)).status
    assert ([], {("paypal", "bad_signature"): 3}) == (client.asked, lab.counts)


async def test_more_messages_than_can_be_in_hand_are_503() -> None:
    """Anybody can send one: they do not pile up behind a gateway that is slow to answer."""
    lab = Lab(client := Client())
    client.go_on.clear()
    message = paypal_event("PAYMENT.CAPTURE.REFUNDED", paypal_refund())
    held = [asyncio.create_task(lab.paypal(message)) for _ in range(MAX_AT_ONCE)]
    await asyncio.sleep(0)
    assert 503 == (await lab.paypal(message)).status
    assert 200 == (await lab.stripe(stripe_event("charge.succeeded", stripe_charge()))).status, "its own"
    client.go_on.set()
    assert {200} == {reply.status for reply in await asyncio.gather(*held)}
    assert 200 == (await lab.paypal(message)).status


OWN_CERTIFICATE = {
    where: {**PAYPAL_HEADERS, "PAYPAL-CERT-URL": where}
    for where in (
        "https://evil.example/v1/notifications/certs/CERT-1", "http://api.paypal.com/v1/notifications/certs/1",
        "https://api.paypal.com.evil.example/certs/1", "https://evil.example/.paypal.com/certs/1",
        "https://api.paypal.com@evil.example/certs/1", "https://api.paypal.com:8443/certs/1",
        "https://evilpaypal.com/certs/1", "https://paypal.com.evil.example/certs/1", "https://paypal.com/certs/1",
    )
}  # fmt: skip


@pytest.mark.parametrize(
    ("gateway", "headers"),
    [
        ("stripe", {}), ("stripe", {"Stripe-Signature": ""}), ("stripe", {"Stripe-Signature": "t=1,v1=00"}),
        ("paypal", {}), ("paypal", {name: "x" for name in PAYPAL_HEADERS}),
        ("paypal", {**PAYPAL_HEADERS, "PAYPAL-TRANSMISSION-SIG": "not of one word"}),
        *(("paypal", headers) for headers in OWN_CERTIFICATE.values()),
    ],
)  # fmt: skip
async def test_without_the_headers_of_one_no_body_is_read_and_nobody_is_asked(
    gateway: str, headers: dict[str, str]
) -> None:
    """No header, an old one, no shape of one, a certificate that does not lie at PayPal's."""
    lab, read = Lab(client := Client()), Counter[str]()

    async def body() -> bytes:
        read["times"] += 1
        return b"{}"

    assert 400 == (await lab.receiver.read_and_receive(gateway, headers, body)).status
    assert ({}, [], {(gateway, "bad_signature"): 1}) == (read, client.asked, lab.counts)


@pytest.mark.parametrize("host", ["api.paypal.com", "api-m.sandbox.paypal.com", "API.sandbox.paypal.com"])
async def test_a_certificate_of_paypals_is_asked_about(host: str) -> None:
    """Whichever host of theirs has it."""
    lab = Lab(client := Client())
    headers = {**PAYPAL_HEADERS, "PAYPAL-CERT-URL": f"https://{host}/v1/notifications/certs/CERT-1"}
    body = orjson.dumps(paypal_event("PAYMENT.CAPTURE.REFUNDED", paypal_refund()))

    async def read() -> bytes:
        return body

    assert 200 == (await lab.receiver.read_and_receive("paypal", headers, read)).status
    assert 1 == len(client.asked)


async def test_a_message_whose_body_gave_way_to_others_is_503() -> None:
    """Counted as unavailable; the gateway sends it again."""
    lab = Lab(Client())
    headers = {"Stripe-Signature": stripe_signature(b"{}")}

    async def read() -> bytes:
        raise Busy

    reply = await lab.receiver.read_and_receive("stripe", headers, read)
    assert (503, "busy", {("stripe", "unavailable"): 1}) == (reply.status, reply.body["error"], lab.counts)


HEADERS = st.dictionaries(st.sampled_from(["Stripe-Signature", *PAYPAL_HEADERS]), st.text(st.characters()))


@given(st.binary(max_size=200), HEADERS)
def test_any_bytes_are_refused(body: bytes, headers: dict[str, str]) -> None:
    """Never an error, never a record."""

    async def send() -> None:
        lab = Lab(Client(verified=False))
        for gateway in ("stripe", "paypal"):
            assert 400 == (await lab.receiver.receive(gateway, headers, body)).status
        assert [] == lab.records

    asyncio.run(send())
