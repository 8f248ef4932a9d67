"""PaymentIntents at Stripe: requests, answers, errors, messages, row by row; the SDK at a loopback server."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import parse_qs

import orjson
import pytest
import stripe
from support.loopback_server import Asked, LoopbackServer, Reply
from support.webhook_payloads import METADATA, PAID, USER, stripe_charge, stripe_event, stripe_intent

from streamsocial_billing.domain.gateway_calls import (
    AUTHENTICATION_REQUIRED,
    PENDING,
    UNCAPTURED,
    Absent,
    Ambiguous,
    Cancellation,
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
from streamsocial_billing.gateways.provider_event import ProviderEvent, gateway_event, ids_of
from streamsocial_billing.gateways.stripe import webhook
from streamsocial_billing.gateways.stripe.client import StripeGateway
from streamsocial_billing.gateways.stripe.declines import is_soft
from streamsocial_billing.gateways.stripe.intents import (
    API_VERSION,
    by_intent,
    found_in_intent,
    outcome_of_call,
    params_for,
)

KEY = gateway_key_of(USER, "charge", PAID)
CHARGE = ChargeRequest(KEY, USER, PAID, "f" * 64, 999, "EUR", "cus_1/pm_1")
QUERY = Query(KEY, "charge", USER, PAID, 999, "EUR", 1_764_600_000_000, payment_method="cus_1/pm_1")
AUTH = {"type": "card_error", "code": "authentication_required", "decline_code": "authentication_required"}
NEEDS: dict[str, Any] = {"status": "requires_payment_method"}


def declined_by(code: str, **more: object) -> dict[str, Any]:
    """An error of a payment."""
    return {"type": "card_error", "code": "card_declined", "decline_code": code, **more}


# ---- what is sent


@pytest.mark.parametrize(
    ("method", "intent"),
    [
        ("cus_1/pm_1", True), ("cus_1/card_1", False), ("cus_1/src_1", False), ("cus_1", False),
        ("tok_visa", False), ("src_1", False), ("pm_1", False), ("", False),
    ],
)  # fmt: skip
def test_row_which_methods_are_charged_by_an_intent(method: str, intent: bool) -> None:
    """A PaymentMethod of a customer; all else stays on the Charges API."""
    assert intent == by_intent(method)


def test_the_parameters_of_an_intent() -> None:
    """Pinned: another parameter under a key that Stripe knows is a mismatch (decision 46)."""
    assert {
        "amount": 999, "currency": "eur", "customer": "cus_1", "payment_method": "pm_1", "off_session": True,
        "confirm": True, "automatic_payment_methods": {"enabled": True, "allow_redirects": "never"},
        "metadata": METADATA,
    } == params_for(CHARGE)  # fmt: skip


def test_the_version_of_the_api_is_pinned_as_the_sdk_s() -> None:
    """A newer SDK comes with types of another version: then both are changed, and the changes read."""
    assert API_VERSION == stripe.api_version


# ---- answers

ANSWERS: list[tuple[dict[str, Any], Outcome]] = [
    (stripe_intent(), Succeeded("pi_1", "pi_1", "ch_1")),
    (stripe_intent(latest_charge={"id": "ch_2"}), Succeeded("pi_1", "pi_1", "ch_2")),
    (
        stripe_intent(latest_charge=None, charges={"data": [{"id": "ch_3"}]}),
        Succeeded("pi_1", "pi_1", "ch_3"),
    ),
    (stripe_intent(amount=998), Ambiguous("bad_reply")),
    (stripe_intent(currency="usd"), Ambiguous("bad_reply")),
    (stripe_intent(status="processing"), Waiting(PENDING, "pi_1", "ch_1")),
    (stripe_intent(status="requires_confirmation"), Waiting(PENDING, "pi_1", "ch_1")),
    (stripe_intent(status="requires_action"), Waiting(AUTHENTICATION_REQUIRED, "pi_1", "ch_1")),
    (stripe_intent(**NEEDS), Waiting(PENDING, "pi_1", "ch_1")),
    (stripe_intent(**NEEDS, last_payment_error=AUTH), Waiting(AUTHENTICATION_REQUIRED, "pi_1", "ch_1")),
    (
        stripe_intent(**NEEDS, last_payment_error=declined_by("lost_card")),
        Declined("lost_card", "pi_1", False, "pi_1", "ch_1"),
    ),
    (
        stripe_intent(**NEEDS, last_payment_error=declined_by("insufficient_funds")),
        Declined("insufficient_funds", "pi_1", True, "pi_1", "ch_1"),
    ),
    (stripe_intent(status="canceled"), Declined("canceled", "pi_1", False, "pi_1", "ch_1")),
    (stripe_intent(status="requires_capture"), Waiting(UNCAPTURED, "pi_1", "ch_1")),
    (stripe_intent(status="something_new"), Ambiguous("bad_reply")),
    ({}, Ambiguous("bad_reply")),
]


@pytest.mark.parametrize(("reply", "outcome"), ANSWERS)
def test_row_each_status_of_an_intent_is_one_outcome(reply: dict[str, Any], outcome: Outcome) -> None:
    """Only `succeeded` is money, only a decline or a cancellation is none."""
    assert outcome == outcome_of_call(CHARGE, 200, {}, reply)


WITHIN = stripe_intent(**NEEDS, last_payment_error=None)
ERRORS: list[tuple[int, dict[str, str], dict[str, Any], Outcome]] = [
    (402, {}, AUTH | {"payment_intent": WITHIN}, Waiting(AUTHENTICATION_REQUIRED, "pi_1", "ch_1")),
    (402, {"idempotent-replayed": "true"}, AUTH | {"payment_intent": WITHIN},
     Waiting(AUTHENTICATION_REQUIRED, "pi_1", "ch_1")),
    (402, {}, AUTH, Ambiguous("intent_not_named", ask_only=True)),
    (402, {}, declined_by("lost_card", payment_intent=WITHIN),
     Declined("lost_card", "pi_1", False, "pi_1", "ch_1")),
    (402, {}, declined_by("lost_card", payment_intent=WITHIN | {"latest_charge": None}, charge="ch_7"),
     Declined("lost_card", "pi_1", False, "pi_1", "ch_7")),
    (402, {}, declined_by("generic_decline", payment_intent=WITHIN, advice_code="do_not_try_again"),
     Declined("generic_decline", "pi_1", False, "pi_1", "ch_1")),
    (402, {}, declined_by("lost_card"), Declined("lost_card")),
    (400, {}, {"type": "invalid_request_error", "code": "payment_intent_unexpected_state",
               "payment_intent": stripe_intent(status="succeeded")}, Succeeded("pi_1", "pi_1", "ch_1")),
    (400, {}, {"type": "invalid_request_error", "code": "parameter_missing"}, Invalid("parameter_missing")),
    (400, {}, {"type": "idempotency_error"}, KeyMismatch("idempotency_error")),
    (404, {}, {"type": "invalid_request_error", "code": "resource_missing"}, Invalid("resource_missing")),
    (409, {}, {"code": "idempotency_key_in_use"}, Ambiguous("in_flight")),
    (429, {"Retry-After": "2"}, {"code": "lock_timeout"}, NotSent("rate_limited", 2.0)),
    (500, {}, {"type": "api_error"}, Ambiguous("http_500")),
    (500, {"Idempotent-Replayed": "true"}, {"type": "api_error"}, Ambiguous("http_500", ask_only=True)),
]  # fmt: skip


@pytest.mark.parametrize(("status", "headers", "error", "outcome"), ERRORS)
def test_row_each_error_of_a_call(
    status: int, headers: dict[str, str], error: dict[str, Any], outcome: Outcome
) -> None:
    """The intent inside an error counts before its status; a replayed one is the same answer."""
    assert outcome == outcome_of_call(CHARGE, status, headers, {"error": error})


@pytest.mark.parametrize(
    ("reason", "error", "soft"),
    [
        ("insufficient_funds", {}, True), ("lost_card", {}, False), ("brand_new", {}, False),
        ("generic_decline", {"advice_code": "do_not_try_again"}, False),
        ("generic_decline", {"advice_code": "confirm_card_data"}, False),
        ("brand_new", {"advice_code": "try_again_later"}, True),
        ("generic_decline", {"network_advice_code": "03"}, False),
        ("generic_decline", {"network_advice_code": "02"}, True),
        ("generic_decline", {"network_decline_code": "14"}, False),
        ("generic_decline", {"network_decline_code": "51"}, True),
        ("generic_decline", {"network_decline_code": "14", "advice_code": "try_again_later"}, True),
    ],
)  # fmt: skip
def test_row_what_the_issuer_advises(reason: str, error: dict[str, str], soft: bool) -> None:
    """`advice_code`, then the network's advice, then the codes."""
    assert soft == is_soft(reason, error)


def test_an_intent_as_an_answer_says_who_and_how_much() -> None:
    """What `find` compares; a canceled one is declined for good."""
    assert Found(
        "pi_1", "succeeded", None, 999, "EUR", USER, PAID, intent="pi_1", intent_charge="ch_1"
    ) == found_in_intent(stripe_intent())  # fmt: skip
    canceled = found_in_intent(stripe_intent(status="canceled"))
    assert canceled is not None
    assert ("declined", "canceled", True, False) == (
        canceled.status, canceled.reason, canceled.canceled, canceled.soft,
    )  # fmt: skip


# ---- messages

Row = tuple[str, str | None, bool, str, str | None, bool]
"""Status, reason, soft, gateway_ref, intent_charge, canceled."""
MESSAGES: list[tuple[str, dict[str, Any], Row]] = [
    ("payment_intent.succeeded", stripe_intent(), ("succeeded", None, False, "pi_1", "ch_1", False)),
    ("payment_intent.processing", stripe_intent(status="processing"),
     ("pending", None, False, "pi_1", "ch_1", False)),
    ("payment_intent.requires_action", stripe_intent(status="requires_action"),
     ("pending", AUTHENTICATION_REQUIRED, False, "pi_1", "ch_1", False)),
    ("payment_intent.payment_failed", stripe_intent(**NEEDS, last_payment_error=AUTH),
     ("pending", AUTHENTICATION_REQUIRED, False, "pi_1", "ch_1", False)),
    ("payment_intent.payment_failed", stripe_intent(**NEEDS, last_payment_error=declined_by("lost_card")),
     ("declined", "lost_card", False, "pi_1", "ch_1", False)),
    ("payment_intent.canceled", stripe_intent(status="canceled"),
     ("declined", "canceled", False, "pi_1", "ch_1", True)),
    ("payment_intent.succeeded", stripe_intent(latest_charge=None, charges={"data": [{"id": "ch_3"}]}),
     ("succeeded", None, False, "pi_1", "ch_3", False)),
    ("charge.succeeded", stripe_charge(payment_intent="pi_1"),
     ("succeeded", None, False, "pi_1", "ch_1", False)),
    ("charge.succeeded", stripe_charge(payment_intent=stripe_intent()),
     ("succeeded", None, False, "pi_1", "ch_1", False)),
    ("charge.failed", stripe_charge(payment_intent="pi_1", status="failed", outcome=None,
                                    failure_code=AUTHENTICATION_REQUIRED),
     ("pending", AUTHENTICATION_REQUIRED, False, "pi_1", "ch_1", False)),
    ("charge.failed", stripe_charge(payment_intent="pi_1", status="failed", outcome=None,
                                    failure_code="insufficient_funds"),
     ("declined", "insufficient_funds", True, "pi_1", "ch_1", False)),
]  # fmt: skip


@pytest.mark.parametrize(("kind", "it", "expected"), MESSAGES)
@pytest.mark.parametrize("version", ["2019-12-03", API_VERSION, "2031-01-01.next"])
def test_row_each_message_about_an_intent(
    kind: str, it: dict[str, Any], expected: Row, version: str
) -> None:
    """By whichever name, of whichever version of the API; the record holds it, and no secret."""
    message = stripe_event(kind, it, api_version=version)
    mapped = webhook.read(message)
    assert isinstance(mapped, ProviderEvent)
    assert expected == (
        mapped.status, mapped.reason, mapped.soft, mapped.gateway_ref, mapped.intent_charge, mapped.canceled,
    )  # fmt: skip
    of = ids_of(mapped)
    assert of is not None and PAID == of.payment_id
    record = gateway_event("stripe", mapped, of)
    assert ("pi_1", expected[4], expected[5]) == (record.intent, record.intent_charge, record.canceled)
    assert b"secret" not in record.to_bytes()


def test_an_intent_of_others_is_foreign_whatever_it_holds() -> None:
    """It need not be readable."""
    message = stripe_event("payment_intent.succeeded", {"object": "payment_intent", "metadata": {}})
    about = webhook.subject(message)
    assert about is not None
    assert ids_of(about) is None


def test_a_message_without_an_intent_is_written_as_before() -> None:
    """An older release reads it."""
    mapped = webhook.read(stripe_event("charge.succeeded", stripe_charge()))
    assert mapped is not None and (of := ids_of(mapped)) is not None
    assert not {"intent", "intent_charge", "canceled"} & gateway_event("stripe", mapped, of).as_json().keys()


# ---- the real SDK

Answer = Callable[[Asked], Reply]


class Server:
    """`replies` by the path without its parameters; `asked` every request."""

    def __init__(self) -> None:
        self.replies: dict[str, tuple[int, dict[str, Any]]] = {}
        self.asked: list[Asked] = []

    def answer(self, asked: Asked) -> Reply:
        """What the test says."""
        self.asked.append(asked)
        status, body = self.replies.get(asked.path.partition("?")[0], (404, {"error": {
            "type": "invalid_request_error", "code": "resource_missing", "message": "none"}}))  # fmt: skip
        return status, orjson.dumps(body)

    def form(self, at: int = -1) -> dict[str, list[str]]:
        """The parameters of a request."""
        return parse_qs((self.asked[at].body or b"").decode())


@pytest.fixture
def server() -> Server:
    """What the loopback server answers."""
    return Server()


@pytest.fixture
def url(server: Server) -> Iterator[str]:
    """Where it listens."""
    with LoopbackServer(server.answer) as loopback:
        yield loopback.url


@pytest.fixture
def gateway(url: str) -> StripeGateway:
    """The adapter with the official SDK."""
    return StripeGateway("sk_test_x", url, account="acct_1")


async def test_an_intent_is_sent_with_key_and_version(gateway: StripeGateway, server: Server) -> None:
    """To /v1/payment_intents; the idempotency key is our reference."""
    server.replies["/v1/payment_intents"] = 200, stripe_intent()
    assert Succeeded("pi_1", "pi_1", "ch_1") == await gateway.charge(CHARGE, timeout_s=30)
    await gateway.close()
    (asked,) = server.asked

    assert (KEY, API_VERSION) == (asked.headers["Idempotency-Key"], asked.headers["Stripe-Version"])
    form = server.form()
    sent = {
        "off_session": ["true"], "confirm": ["true"], "payment_method": ["pm_1"], "customer": ["cus_1"],
        "automatic_payment_methods[allow_redirects]": ["never"], "metadata[ref]": [KEY],
    }  # fmt: skip
    assert sent.items() <= form.items()


async def test_a_key_of_an_older_release_is_answered_by_its_shape(
    gateway: StripeGateway, server: Server
) -> None:
    """It sent a PaymentMethod to the Charges API. A refusal that is not kept under the key proves nothing."""
    refused = {"error": {"type": "invalid_request_error", "code": "resource_missing"}}
    server.replies["/v1/payment_intents"] = 400, {"error": {"type": "idempotency_error"}}
    server.replies["/v1/charges"] = 400, refused
    outcome = await gateway.charge(CHARGE, timeout_s=30)
    await gateway.close()

    assert isinstance(outcome, KeyMismatch)
    assert ["/v1/payment_intents", "/v1/charges"] == [one.path for one in server.asked]
    assert {"source": ["pm_1"], "customer": ["cus_1"]}.items() <= server.form().items()


async def test_known_by_its_id_it_alone_is_asked_for(gateway: StripeGateway, server: Server) -> None:
    """One GET; an intent that is not there is absent."""
    server.replies["/v1/payment_intents/pi_1"] = 200, stripe_intent(status="processing")
    known = Query(KEY, "charge", USER, PAID, 999, "EUR", 0, payment_method="cus_1/pm_1", intent="pi_1")
    found = await gateway.find(known, timeout_s=30)
    other = Query(KEY, "charge", USER, PAID, 999, "EUR", 0, payment_method="cus_1/pm_1", intent="pi_2")
    assert isinstance(found, Found)
    assert ("pending", PENDING) == (found.status, found.reason)
    assert Absent() == await gateway.find(other, timeout_s=30)
    await gateway.close()
    assert ["/v1/payment_intents/pi_1", "/v1/payment_intents/pi_2"] == [one.path for one in server.asked]


async def test_without_its_id_it_is_searched_then_listed(gateway: StripeGateway, server: Server) -> None:
    """By our reference, among the customer's intents."""
    empty = {"object": "search_result", "data": [], "has_more": False}
    server.replies["/v1/payment_intents/search"] = 200, empty
    listed = {"object": "list", "data": [stripe_intent(metadata={}), stripe_intent()], "has_more": False}
    server.replies["/v1/payment_intents"] = 200, listed
    found = await gateway.find(QUERY, timeout_s=30)
    await gateway.close()

    assert isinstance(found, Found)
    assert ("succeeded", "pi_1") == (found.status, found.intent)
    assert "customer=cus_1" in server.asked[-1].path


@pytest.mark.parametrize(
    ("status", "body", "expected"),
    [
        (200, stripe_intent(status="canceled"), ("declined", True)),
        (400, {"error": {"type": "invalid_request_error", "code": "payment_intent_unexpected_state",
                         "payment_intent": stripe_intent()}}, ("succeeded", False)),
        (400, {"error": {"type": "invalid_request_error", "code": "payment_intent_unexpected_state"}},
         ("pending", False)),
    ],
)  # fmt: skip
async def test_a_cancellation_says_what_the_intent_is_then(
    gateway: StripeGateway, server: Server, status: int, body: dict[str, Any], expected: tuple[str, bool]
) -> None:
    """Canceled, or what came before; where the refusal does not say it, it is asked for."""
    server.replies["/v1/payment_intents/pi_1/cancel"] = status, body
    server.replies["/v1/payment_intents/pi_1"] = 200, stripe_intent(status="processing")
    known = Query(KEY, "charge", USER, PAID, 999, "EUR", 0, payment_method="cus_1/pm_1", intent="pi_1")
    found = await gateway.cancel(Cancellation(known), timeout_s=30)
    await gateway.close()

    assert isinstance(found, Found)
    assert expected == (found.status, found.canceled)


@pytest.mark.parametrize(("ref", "name"), [("pi_1", "payment_intent"), ("ch_1", "charge")])
async def test_a_refund_names_the_intent_or_the_charge(
    gateway: StripeGateway, server: Server, ref: str, name: str
) -> None:
    """By what the charge's entry has."""
    made = {"id": "re_1", "status": "succeeded", "amount": 300, "currency": "eur"}
    server.replies["/v1/refunds"] = 200, made
    request = RefundRequest(gateway_key_of(USER, "refund", "r-1"), USER, "r-1", "f" * 64, 300, "EUR", ref)
    assert Succeeded("re_1") == await gateway.refund(request, timeout_s=30)
    await gateway.close()
    assert [ref] == server.form()[name]


async def test_whose_an_intent_is(gateway: StripeGateway, server: Server) -> None:
    """A refund made in the dashboard names it."""
    server.replies["/v1/payment_intents/pi_1"] = 200, stripe_intent()
    assert Owner(USER, PAID, KEY) == await gateway.owner_of("pi_1", timeout_s=30)
    await gateway.close()


async def test_a_list_names_the_intent_of_each_charge(gateway: StripeGateway, server: Server) -> None:
    """Refunds of it, too; the charge's own id stands beside it."""
    refunds = [{
        "id": "re_1", "amount": 300, "currency": "eur", "status": "succeeded", "created": 1_764_600_000,
        "charge": "ch_1", "payment_intent": "pi_1", "metadata": {},
    }]  # fmt: skip
    charges = [stripe_charge(payment_intent="pi_1"), stripe_charge(id="ch_2", payment_intent=None)]
    server.replies["/v1/charges"] = 200, {"data": charges, "has_more": False}
    server.replies["/v1/refunds"] = 200, {"data": refunds, "has_more": False}
    server.replies["/v1/disputes"] = 200, {"data": [], "has_more": False}
    rows = [one async for one in gateway.movements(0, 4_000_000_000_000)]
    await gateway.close()

    assert [("pi_1", "ch_1", None), ("ch_2", None, None), ("re_1", None, "pi_1")] == [
        (one.gateway_ref, one.intent_charge, one.charge_ref) for one in rows
    ]


async def test_the_client_secret_is_in_no_log(
    gateway: StripeGateway, server: Server, caplog: pytest.LogCaptureFixture
) -> None:
    """Whatever the level: the SDK would log bodies at debug."""
    caplog.set_level(logging.DEBUG)
    server.replies["/v1/payment_intents"] = 200, stripe_intent(status="requires_action")
    outcome = await gateway.charge(CHARGE, timeout_s=30)
    await gateway.close()

    assert "secret" not in f"{outcome} {caplog.text}"


def test_the_log_of_the_sdk_shows_no_client_secret_at_debug_either() -> None:
    """`STRIPE_LOG=debug` makes the SDK print bodies itself, past every logger: it counts as `info`."""
    code = """
import streamsocial_billing.gateways.stripe.client
from stripe._util import log_debug, log_info
log_info("Stripe API response", response_code=200)
log_debug("API response body", body='{"client_secret": "pi_1_secret_9"}')
"""
    done = subprocess.run(
        [sys.executable, "-c", code], env=os.environ | {"STRIPE_LOG": "debug"}, capture_output=True,
        text=True, check=True, timeout=60,
    )  # fmt: skip
    said = done.stdout + done.stderr
    assert "pi_1_secret_9" not in said
    assert "response_code=200" in said
    assert "STRIPE_LOG" in said, "who set it is told"
