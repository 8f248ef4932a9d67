"""The PayPal adapter: its mapping row by row, its requests against WireMock."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from msgspec.structs import replace
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
    Waiting,
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
    (CHARGE, 201, order("PENDING"), Waiting("pending_at_gateway", "CAP1")),
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
    (CHARGE, 422, issue("TOKEN_ID_NOT_FOUND"), Declined("TOKEN_ID_NOT_FOUND")),
    (CHARGE, 422, issue("PAYER_ACTION_REQUIRED"), Declined("PAYER_ACTION_REQUIRED")),
    (CHARGE, 422, issue("REDIRECT_PAYER_FOR_ALTERNATE_FUNDING"),
     Declined("REDIRECT_PAYER_FOR_ALTERNATE_FUNDING", soft=True)),
    (CHARGE, 422, issue("MISMATCHED_VAULT_ID_TO_PAYMENT_SOURCE"),
     Invalid("MISMATCHED_VAULT_ID_TO_PAYMENT_SOURCE")),
    (REFUND, 422, issue("PREVIOUS_REQUEST_IN_PROGRESS"), Ambiguous("in_flight")),
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
        assert Succeeded("CAP1") == await gateway.charge(CHARGE, timeout_s=60)
    assert 1 == len(wiremock.requests(TOKEN))
    sent = wiremock.requests(ORDERS)
    assert ["ss1_k"] * 2 == [one["headers"]["PayPal-Request-Id"] for one in sent]
    body = json.loads(sent[0]["body"])
    unit = {"amount": MONEY, "invoice_id": "ss1_k", "custom_id": "ss1_k:u1:p1"}
    assert ("CAPTURE", [unit]) == (body["intent"], body["purchase_units"])
    assert {"paypal": {"vault_id": "vault-1", "stored_credential": {
        "payment_initiator": "MERCHANT", "usage": "SUBSEQUENT",
    }}} == body["payment_source"]  # fmt: skip


async def test_a_saved_card_is_charged_as_a_card(wiremock: WireMock, gateway: PayPalGateway) -> None:
    """`card/ID`: the vault's token under `card`, with what the card's network asks of a stored one."""
    wiremock.stub("POST", ORDERS, order(), 201)
    await gateway.charge(replace(CHARGE, payment_method="card/vault-2"), timeout_s=60)
    assert {"card": {"vault_id": "vault-2", "stored_credential": {
        "payment_initiator": "MERCHANT", "payment_type": "UNSCHEDULED", "usage": "SUBSEQUENT",
    }}} == json.loads(wiremock.requests(ORDERS)[0]["body"])["payment_source"]  # fmt: skip


@pytest.mark.parametrize(
    ("method", "said"),
    [("vault-1", {"usage_pattern": "SUBSCRIPTION_PREPAID"}), ("card/vault-2", {"payment_type": "RECURRING"})],
)
async def test_a_payment_of_a_subscription_is_one_of_a_series(
    wiremock: WireMock, gateway: PayPalGateway, method: str, said: dict[str, str]
) -> None:
    """Networks and banks are told that its amount and its interval were agreed; of a gift they are not."""
    wiremock.stub("POST", ORDERS, order(), 201)
    for product in ("subscription", "gift"):
        await gateway.charge(replace(CHARGE, payment_method=method, product=product), timeout_s=60)
    sources = [json.loads(one["body"])["payment_source"] for one in wiremock.requests(ORDERS)]
    series, single = (one["stored_credential"] for source in sources for one in source.values())
    assert {"payment_initiator": "MERCHANT", "usage": "SUBSEQUENT", **said} == series
    assert said.items() & single.items() == set()


async def test_a_call_of_a_release_before_vault_v3_is_answered_by_its_shape(
    wiremock: WireMock, gateway: PayPalGateway
) -> None:
    """Known with other parameters: once more under the same key, as that release had sent it."""
    mismatch = {"status": 422, "jsonBody": issue("DUPLICATE_REQUEST_ID")}
    wiremock.stub("POST", ORDERS, order(), 201)
    wiremock.stub_body("POST", ORDERS, "$.payment_source.paypal", **mismatch)
    assert Succeeded("CAP1") == await gateway.charge(CHARGE, timeout_s=60)
    sent = [json.loads(one["body"])["payment_source"] for one in wiremock.requests(ORDERS)]
    assert ["paypal", "token"] == [name for source in sent for name in source]
    assert {"token": {"id": "vault-1", "type": "PAYMENT_METHOD_TOKEN"}} == sent[1]
    keys = {one["headers"]["PayPal-Request-Id"] for one in wiremock.requests(ORDERS)}
    assert {"ss1_k"} == keys


async def test_an_order_that_is_not_captured_yet_is_captured(
    wiremock: WireMock, gateway: PayPalGateway
) -> None:
    """The capture goes under the same key; that it was not sent leaves the whole in doubt."""
    wiremock.stub("POST", ORDERS, {"id": "O1", "status": "CREATED"}, 201)
    wiremock.stub("POST", f"{ORDERS}/O1/capture", order(), 201)
    assert Succeeded("CAP1") == await gateway.charge(CHARGE, timeout_s=60)
    assert "ss1_k" == wiremock.requests(f"{ORDERS}/O1/capture")[0]["headers"]["PayPal-Request-Id"]
    wiremock.stub("POST", f"{ORDERS}/O1/capture", {}, 429)
    assert Ambiguous("rate_limited") == await gateway.charge(CHARGE, timeout_s=60)


async def test_a_refund_goes_to_its_capture(wiremock: WireMock, gateway: PayPalGateway) -> None:
    """The charge's reference is the path."""
    wiremock.stub("POST", "/v2/payments/captures/CAP1/refund", moved(id="REF1"), 201)
    assert Succeeded("REF1") == await gateway.refund(REFUND, timeout_s=60)


async def test_without_access_nothing_is_sent(wiremock: WireMock, gateway: PayPalGateway) -> None:
    """Refused credentials are proven unsent, and tried again with the next call."""
    wiremock.stub("POST", TOKEN, {"error": "invalid_client"}, 401)
    assert NotSent("auth") == await gateway.charge(CHARGE, timeout_s=60)
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
    outcome = await gateway.charge(CHARGE, timeout_s=60 if outcomes == {"reset"} else 5)
    assert isinstance(outcome, Ambiguous)
    assert outcome.reason in outcomes


async def test_a_reply_that_comes_too_late_is_ambiguous(wiremock: WireMock, gateway: PayPalGateway) -> None:
    """A time-out says nothing of the charge."""
    wiremock.stub("POST", ORDERS, order(), 201)
    await gateway.charge(CHARGE, timeout_s=60)  # the token is there, so is a connection: the next is sent
    wiremock.stub("POST", ORDERS, order(), 201, fixedDelayMilliseconds=60_000)
    assert Ambiguous("timeout") == await gateway.charge(CHARGE, timeout_s=3)


async def test_find_reads_the_transaction_search(wiremock: WireMock, gateway: PayPalGateway) -> None:
    """Found by our reference over all pages; otherwise absent; a list that fails says nothing."""
    made = datetime.now(UTC) - timedelta(hours=6)  # whatever the day is
    row = {
        "transaction_id": "CAP1", "transaction_event_code": "T0006", "transaction_status": "S",
        "transaction_initiation_date": f"{made:%Y-%m-%dT%H:%M:%S+0000}", "transaction_amount": MONEY,
        "fee_amount": {**MONEY, "value": "-0.64"}, "invoice_id": KEY, "custom_field": f"{KEY}:u1:p1",
    }  # fmt: skip
    wiremock.stub("GET", "/v1/reporting/transactions", {
        "total_pages": 1, "transaction_details": [{"transaction_info": row}],
    })  # fmt: skip
    since_ms = int(made.timestamp() * 1000) - 6 * 3_600_000
    query = Query(KEY, "charge", "u1", "p1", 999, "EUR", since_ms)
    moves = [one async for one in gateway.movements(since_ms, since_ms + 12 * 3_600_000)]
    assert [("CAP1", "charge", 999, 64, KEY, "p1", "u1")] == [
        (one.gateway_ref, one.kind, one.amount_minor, one.fee_minor, one.ref, one.payment_id, one.user_id)
        for one in moves
    ]
    found = await gateway.find(query, timeout_s=60)
    assert Found("CAP1", "succeeded", None, 999, "EUR", "u1", "p1") == found
    assert Absent() == await gateway.find(replace(query, idempotency_key="ss1_other"), timeout_s=60)
    wiremock.stub("GET", "/v1/reporting/transactions", {}, 500)
    assert isinstance(await gateway.find(query, timeout_s=60), Ambiguous)


ASKED = Query(KEY, "charge", "u1", "p1", 999, "EUR", 0, intent="CAP1")
CAPTURE_ROWS: list[tuple[int, Any, Any]] = [
    (200, moved("PENDING", status_details={"reason": "ECHECK"}), ("pending", "pending_at_gateway", False)),
    (200, moved(), ("succeeded", None, False)),
    (200, moved("PARTIALLY_REFUNDED"), ("succeeded", None, False)),
    (200, moved("DECLINED", processor_response={"response_code": "5120"}), ("declined", "5120", True)),
    (200, moved("FAILED"), ("declined", "failed", False)),
    (200, moved("WHATEVER"), Ambiguous("bad_reply")),
    (200, moved(id="CAP2"), Ambiguous("bad_reply")),
    (404, {"name": "RESOURCE_NOT_FOUND"}, Absent()),
    (404, None, Ambiguous("http_404")),
    (503, None, Ambiguous("http_503")),
    (403, {}, NotSent("auth")),
]


@pytest.mark.parametrize(("status", "reply", "answer"), CAPTURE_ROWS)
async def test_a_pending_capture_is_asked_for_by_its_id(
    wiremock: WireMock, gateway: PayPalGateway, status: int, reply: Any, answer: Any
) -> None:
    """Its own status decides, whatever the transaction search knows; a decline is for good."""
    body = reply and {**reply, "invoice_id": KEY, "custom_id": f"{KEY}:u1:p1"}
    wiremock.stub("GET", "/v2/payments/captures/CAP1", body, status)
    found = await gateway.find(ASKED, timeout_s=60)
    if isinstance(found, Found):
        assert found.agrees(ASKED)
        assert ("CAP1", "CAP1", found.status == "declined") == (
            found.gateway_ref, found.intent, found.canceled)  # fmt: skip
        assert answer == (found.status, found.reason, found.soft)
    else:
        assert answer == found
    assert [] == wiremock.requests("/v1/reporting/transactions")


async def test_a_capture_of_another_user_settles_nothing(wiremock: WireMock, gateway: PayPalGateway) -> None:
    """Without our words it is nobody's."""
    wiremock.stub("GET", "/v2/payments/captures/CAP1", moved())
    found = await gateway.find(ASKED, timeout_s=60)
    assert isinstance(found, Found)
    assert not found.agrees(ASKED)


async def test_a_message_goes_back_to_paypal_byte_for_byte(
    wiremock: WireMock, gateway: PayPalGateway
) -> None:
    """Blanks, escapes, trailing zeros stay: the signature is over the bytes, not over what they mean."""
    path, body = "/v1/notifications/verify-webhook-signature", b'{"a": 1.00,  "b":"\\u00e9"}'
    wiremock.stub("POST", path, {"verification_status": "SUCCESS"})
    assert True is await gateway.verify_webhook("WEB1", {"transmission_id": "t"}, body, timeout_s=60)
    sent = wiremock.requests(path)[0]["body"]
    assert '{"transmission_id":"t","webhook_id":"WEB1","webhook_event":' + body.decode() + "}" == sent
    wiremock.stub("POST", path, {"verification_status": "SUCCESS"}, fixedDelayMilliseconds=60_000)
    assert Ambiguous("timeout") == await gateway.verify_webhook("WEB1", {}, body, timeout_s=3)


async def test_a_capture_says_whose_it_is(wiremock: WireMock, gateway: PayPalGateway) -> None:
    """Our words in `custom_id`; without them, or without the capture, it is absent here."""
    path = "/v2/payments/captures/CAP1"
    wiremock.stub("GET", path, moved(custom_id="ss1_k:u1:p1"))
    assert Owner("u1", "p1", "ss1_k") == await gateway.owner_of("CAP1", timeout_s=60)
    for reply, status in ((moved(custom_id="other"), 200), (moved(), 200), ({}, 404)):
        wiremock.stub("GET", path, reply, status)
        assert Absent() == await gateway.owner_of("CAP1", timeout_s=60)
    wiremock.stub("GET", path, {}, 503)
    assert Ambiguous("http_503") == await gateway.owner_of("CAP1", timeout_s=60)
