"""The PayPal adapter: its mapping row by row, its requests against WireMock."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import pytest
from support.wiremock_server import WireMock

from streamsocial_billing.domain.gateway_calls import (
    Absent,
    Ambiguous,
    ChargeRequest,
    Declined,
    Found,
    Invalid,
    KeyMismatch,
    NotSent,
    Outcome,
    Owner,
    Query,
    RefundRequest,
    Succeeded,
)
from streamsocial_billing.domain.payment_identity import gateway_key_of
from streamsocial_billing.gateways.paypal.amounts import decimal_text, minor_of
from streamsocial_billing.gateways.paypal.client import PayPalGateway
from streamsocial_billing.gateways.paypal.replies import outcome_of_reply

KEY = gateway_key_of("u1", "charge", "p1")
CHARGE = ChargeRequest("ss1_k", "u1", "p1", "f" * 64, 999, "EUR", "vault-1")
REFUND = RefundRequest("ss1_r", "u1", "r1", "f" * 64, 999, "EUR", "CAP1")
MONEY = {"currency_code": "EUR", "value": "9.99"}
TOKEN, ORDERS = "/v1/oauth2/token", "/v2/checkout/orders"


def moved(status: str = "COMPLETED", **more: object) -> dict[str, Any]:
    return {"id": "CAP1", "status": status, "amount": MONEY, **more}


def order(status: str = "COMPLETED", **more: object) -> dict[str, Any]:
    captures = [moved(status, **more)]
    return {"id": "O1", "status": "COMPLETED", "purchase_units": [{"payments": {"captures": captures}}]}


def issue(name: str) -> dict[str, Any]:
    return {"name": "UNPROCESSABLE_ENTITY", "details": [{"issue": name}]}


ROWS: list[tuple[ChargeRequest | RefundRequest, int, Any, Outcome]] = [
    (CHARGE, 201, order(), Succeeded("CAP1")),
    (CHARGE, 201, order(amount={**MONEY, "value": "9.98"}), Ambiguous("bad_reply")),
    (CHARGE, 201, order("PENDING"), Ambiguous("pending", ask_only=True)),
    (CHARGE, 201, order("DECLINED", processor_response={"response_code": "5120"}),
     Declined("5120", "CAP1", soft=True)),
    (CHARGE, 201, order("DECLINED", processor_response={"response_code": "9520"}), Declined("9520", "CAP1")),
    (CHARGE, 201, {"id": "O1", "status": "PAYER_ACTION_REQUIRED"}, Declined("payer_action_required")),
    (CHARGE, 201, {}, Ambiguous("bad_reply")),
    (CHARGE, 200, None, Ambiguous("bad_reply")),
    (REFUND, 201, moved(), Succeeded("CAP1")),
    (REFUND, 201, moved("FAILED"), Declined("failed", "CAP1")),
    (REFUND, 201, moved("PENDING"), Ambiguous("pending", ask_only=True)),
    (CHARGE, 422, issue("INSTRUMENT_DECLINED"), Declined("INSTRUMENT_DECLINED", soft=True)),
    (CHARGE, 422, issue("CARD_EXPIRED"), Declined("CARD_EXPIRED")),
    (CHARGE, 422, issue("DUPLICATE_INVOICE_ID"), Ambiguous("duplicate_invoice_id", ask_only=True)),
    (CHARGE, 422, issue("DUPLICATE_REQUEST_ID"), KeyMismatch("DUPLICATE_REQUEST_ID")),
    (REFUND, 422, issue("CAPTURE_FULLY_REFUNDED"), Declined("CAPTURE_FULLY_REFUNDED")),
    (CHARGE, 400, {"name": "INVALID_REQUEST"}, Invalid("INVALID_REQUEST")),
    (CHARGE, 404, issue("INVALID_RESOURCE_ID"), Invalid("INVALID_RESOURCE_ID")),
    (CHARGE, 404, None, Ambiguous("bad_reply")),
    (CHARGE, 401, None, NotSent("auth")),
    (CHARGE, 403, {}, NotSent("auth")),
    (CHARGE, 409, {}, Ambiguous("in_flight")),
    (CHARGE, 429, None, NotSent("rate_limited", 3.0)),
    (CHARGE, 500, order(), Ambiguous("http_500")),
    (CHARGE, 302, {}, Ambiguous("bad_reply")),
]  # fmt: skip


@pytest.mark.parametrize(("request_", "status", "reply", "outcome"), ROWS)
def test_each_reply_has_one_outcome(
    request_: ChargeRequest | RefundRequest, status: int, reply: Any, outcome: Outcome
) -> None:
    """A reply counts only if status and body agree; what tells nothing is ambiguous."""
    assert outcome == outcome_of_reply(request_, status, {"Retry-After": "3"}, reply)


@pytest.mark.parametrize(
    ("minor", "currency", "text"),
    [
        (999, "EUR", "9.99"), (1, "USD", "0.01"), (999, "JPY", "999"), (99_900, "HUF", "999"),
        (99_901, "HUF", None), (50_000, "TWD", "500"), (5000, "KWD", None), (100, "INR", None),
        (10**12, "USD", "10000000000.00"),
    ],
)  # fmt: skip
def test_amounts_are_exact_or_refused(minor: int, currency: str, text: str | None) -> None:
    """No rounding: what PayPal cannot carry is refused unsent, the rest reads back as it was."""
    assert text == decimal_text(minor, currency)
    if text is not None:
        assert (minor, currency) == minor_of({"currency_code": currency, "value": text})


@pytest.fixture
async def gateway(wiremock: WireMock) -> AsyncIterator[PayPalGateway]:
    wiremock.reset()
    wiremock.stub("POST", TOKEN, {"access_token": "t-1", "expires_in": 3600})
    client = PayPalGateway("client", "geheim", wiremock.url)
    await client.start()
    yield client
    await client.close()


async def test_a_charge_is_an_order_under_our_key_over_the_vaulted_token(
    wiremock: WireMock, gateway: PayPalGateway
) -> None:
    """Key, reference, token and exact amount travel; the access token is asked for once."""
    wiremock.stub("POST", ORDERS, order(), 201)
    for _ in range(2):
        assert Succeeded("CAP1") == await gateway.charge(CHARGE, timeout_s=5)
    assert 1 == len(wiremock.requests(TOKEN))
    sent = wiremock.requests(ORDERS)
    assert ["ss1_k"] * 2 == [one["headers"]["PayPal-Request-Id"] for one in sent]
    body = json.loads(sent[0]["body"])
    unit = {"amount": MONEY, "invoice_id": "ss1_k", "custom_id": "ss1_k:u1:p1"}
    assert ("CAPTURE", [unit]) == (body["intent"], body["purchase_units"])
    assert {"token": {"id": "vault-1", "type": "PAYMENT_METHOD_TOKEN"}} == body["payment_source"]


async def test_an_order_that_is_not_captured_yet_is_captured(
    wiremock: WireMock, gateway: PayPalGateway
) -> None:
    """The capture goes under the same key; that it was not sent leaves the whole in doubt."""
    wiremock.stub("POST", ORDERS, {"id": "O1", "status": "CREATED"}, 201)
    wiremock.stub("POST", f"{ORDERS}/O1/capture", order(), 201)
    assert Succeeded("CAP1") == await gateway.charge(CHARGE, timeout_s=5)
    assert "ss1_k" == wiremock.requests(f"{ORDERS}/O1/capture")[0]["headers"]["PayPal-Request-Id"]
    wiremock.stub("POST", f"{ORDERS}/O1/capture", {}, 429)
    assert Ambiguous("rate_limited") == await gateway.charge(CHARGE, timeout_s=5)


async def test_a_refund_goes_to_its_capture(wiremock: WireMock, gateway: PayPalGateway) -> None:
    """The charge's reference is the path."""
    wiremock.stub("POST", "/v2/payments/captures/CAP1/refund", moved(id="REF1"), 201)
    assert Succeeded("REF1") == await gateway.refund(REFUND, timeout_s=5)


async def test_without_access_nothing_is_sent(wiremock: WireMock, gateway: PayPalGateway) -> None:
    """Refused credentials are proven unsent, and tried again with the next call."""
    wiremock.stub("POST", TOKEN, {"error": "invalid_client"}, 401)
    assert NotSent("auth") == await gateway.charge(CHARGE, timeout_s=5)
    assert [] == wiremock.requests(ORDERS)


@pytest.mark.parametrize(
    ("fault", "outcomes"),
    [
        ("CONNECTION_RESET_BY_PEER", {"reset"}),
        ("EMPTY_RESPONSE", {"reset"}),
        ("MALFORMED_RESPONSE_CHUNK", {"cut_body", "reset", "bad_reply", "timeout"}),
    ],
)
async def test_a_broken_reply_is_ambiguous(
    wiremock: WireMock, gateway: PayPalGateway, fault: str, outcomes: set[str]
) -> None:
    """Whatever the network did to the reply, nothing is said of the charge."""
    wiremock.stub("POST", ORDERS, order(), 201, fault=fault)
    outcome = await gateway.charge(CHARGE, timeout_s=1)
    assert isinstance(outcome, Ambiguous)
    assert outcome.reason in outcomes


async def test_a_reply_that_comes_too_late_is_ambiguous(wiremock: WireMock, gateway: PayPalGateway) -> None:
    """A time-out says nothing of the charge."""
    wiremock.stub("POST", ORDERS, order(), 201, fixedDelayMilliseconds=3000)
    assert Ambiguous("timeout") == await gateway.charge(CHARGE, timeout_s=0.5)


async def test_find_reads_the_transaction_search(wiremock: WireMock, gateway: PayPalGateway) -> None:
    """Found by our reference over all pages; otherwise absent; a list that fails says nothing."""
    row = {
        "transaction_id": "CAP1", "transaction_event_code": "T0006", "transaction_status": "S",
        "transaction_initiation_date": "2026-11-24T12:00:00+0000", "transaction_amount": MONEY,
        "fee_amount": {**MONEY, "value": "-0.64"}, "invoice_id": KEY, "custom_field": f"{KEY}:u1:p1",
    }  # fmt: skip
    wiremock.stub("GET", "/v1/reporting/transactions", {
        "total_pages": 1, "transaction_details": [{"transaction_info": row}],
    })  # fmt: skip
    since_ms = 1_795_500_000_000  # 2026-11-24T06:00Z
    query = Query(KEY, "charge", "u1", "p1", 999, "EUR", since_ms)
    moves = [one async for one in gateway.movements(since_ms, since_ms + 86_400_000)]
    assert [("CAP1", "charge", 999, 64, KEY, "p1", "u1")] == [
        (one.gateway_ref, one.kind, one.amount_minor, one.fee_minor, one.ref, one.payment_id, one.user_id)
        for one in moves
    ]
    found = await gateway.find(query, timeout_s=5)
    assert Found("CAP1", "succeeded", None, 999, "EUR", "u1", "p1") == found
    assert Absent() == await gateway.find(replace(query, idempotency_key="ss1_other"), timeout_s=5)
    wiremock.stub("GET", "/v1/reporting/transactions", {}, 500)
    assert isinstance(await gateway.find(query, timeout_s=5), Ambiguous)


async def test_a_message_goes_back_to_paypal_byte_for_byte(
    wiremock: WireMock, gateway: PayPalGateway
) -> None:
    """Blanks, escapes, trailing zeros stay: the signature is over the bytes, not over what they mean."""
    path, body = "/v1/notifications/verify-webhook-signature", b'{"a": 1.00,  "b":"\\u00e9"}'
    wiremock.stub("POST", path, {"verification_status": "SUCCESS"})
    assert True is await gateway.verify_webhook("WEB1", {"transmission_id": "t"}, body, timeout_s=5)
    sent = wiremock.requests(path)[0]["body"]
    assert '{"transmission_id":"t","webhook_id":"WEB1","webhook_event":' + body.decode() + "}" == sent
    wiremock.stub("POST", path, {"verification_status": "SUCCESS"}, fixedDelayMilliseconds=3000)
    assert Ambiguous("timeout") == await gateway.verify_webhook("WEB1", {}, body, timeout_s=0.5)


async def test_a_capture_says_whose_it_is(wiremock: WireMock, gateway: PayPalGateway) -> None:
    """Our words in `custom_id`; without them, or without the capture, it is absent here."""
    path = "/v2/payments/captures/CAP1"
    wiremock.stub("GET", path, moved(custom_id="ss1_k:u1:p1"))
    assert Owner("u1", "p1", "ss1_k") == await gateway.owner_of("CAP1", timeout_s=5)
    for reply, status in ((moved(custom_id="other"), 200), (moved(), 200), ({}, 404)):
        wiremock.stub("GET", path, reply, status)
        assert Absent() == await gateway.owner_of("CAP1", timeout_s=5)
    wiremock.stub("GET", path, {}, 503)
    assert Ambiguous("http_503") == await gateway.owner_of("CAP1", timeout_s=5)
