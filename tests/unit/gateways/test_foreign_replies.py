"""Whatever a gateway answers: what is kept is short, in a code's or an id's alphabet, no card number."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable
from typing import Any

import orjson
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from hypothesis import example, given, settings
from hypothesis import strategies as st
from msgspec import structs

from streamsocial_billing.domain.card_numbers import holds_card_in_id
from streamsocial_billing.domain.foreign_text import code_in, reference_in
from streamsocial_billing.domain.gateway_calls import (
    Ambiguous,
    ChargeRequest,
    Declined,
    Invalid,
    Outcome,
    Query,
    RefundRequest,
    Succeeded,
)
from streamsocial_billing.gateways.paypal import replies as paypal
from streamsocial_billing.gateways.paypal.client import PayPalGateway
from streamsocial_billing.gateways.simulated import SimulatedGateway
from streamsocial_billing.gateways.stripe import intents
from streamsocial_billing.gateways.stripe import shapes as stripe
from streamsocial_billing.gateways.stripe.client import StripeGateway

CHARGE = ChargeRequest("ss1_k", "u1", "p1", "f" * 64, 999, "EUR", "tok_visa")
REFUND = RefundRequest("ss1_k", "u1", "p1", "f" * 64, 999, "EUR", "ch_1")
QUERY = Query("ss1_k", "charge", "u1", "p1", 999, "EUR", 0)
KEPT = re.compile(r"[!-~]{1,255}")
FORGED = "x\n2026-11-30T00:00:00.000Z ERROR forged \x1b[2J"
BAD = st.sampled_from(
    ["", FORGED, "y" * 1_300_000, "4242424242424242", "code_4242.4242.4242.4242", "\u202e", "card declined",
     "\ud800", "ok_code", "ch_1"]
)  # fmt: skip
KINDS = st.sampled_from(["card_error", "invalid_request_error", FORGED])
TEXT = BAD | st.text(max_size=300)


def stripe_error(status: int, code: str, kind: str, ref: str) -> tuple[int, dict[str, Any]]:
    made = intent(ref, code)
    error = {"type": kind, "code": code, "decline_code": code, "charge": ref, "payment_intent": made}
    return status, {"error": error}


def intent(ref: str, code: str) -> dict[str, Any]:
    return {
        "id": ref, "object": "payment_intent", "amount": 999, "currency": "eur", "latest_charge": ref,
        "status": "requires_payment_method", "last_payment_error": {"code": code, "type": "card_error"},
    }  # fmt: skip


def check(said: Any) -> None:
    """Every text that an outcome or answer keeps."""
    for name in ("reason", "gateway_ref", "intent", "intent_charge"):
        text = structs.asdict(said).get(name)
        drawn = name != "reason" and text is not None and any(sign.isalpha() for sign in text)
        whole = text is None or drawn or not holds_card_in_id(text)
        assert text is None or (KEPT.fullmatch(text) and whole), (name, text[:80])
    assert len(structs.asdict(said).get("reason") or "") <= 100


@given(TEXT, TEXT, KINDS, st.sampled_from([CHARGE, REFUND]))
@example(FORGED, "ch_1", "card_error", CHARGE)
@example("y" * 1_300_000, "y" * 1_300_000, "invalid_request_error", CHARGE)
@settings(max_examples=150)
def test_what_stripe_says_is_kept_in_the_alphabet_of_a_code(
    code: str, ref: str, kind: str, request: Any
) -> None:
    """Charges, refunds, intents, errors, rows of lists."""
    for status in (400, 402, 404):
        _, reply = stripe_error(status, code, kind, ref)
        check(stripe.outcome_of_reply(request, status, {}, reply))
        check(intents.outcome_of_call(CHARGE, status, {}, reply))
    for status_text in ("succeeded", "failed", "canceled", "pending"):
        row = {"id": ref, "status": status_text, "amount": 999, "currency": "EUR", "failure_reason": code,
               "failure_code": code, "outcome": {"reason": code}}  # fmt: skip
        check(stripe.outcome_of_reply(request, 200, {}, row))
        found = stripe.found_in(QUERY, row)
        if found is not None:
            check(found)
    check(intents.outcome_of_intent(CHARGE, intent(ref, code)))


@given(TEXT, TEXT, st.sampled_from([CHARGE, REFUND]))
@example("y" * 1_300_000, FORGED, CHARGE)
@settings(max_examples=150)
def test_what_paypal_says_is_kept_in_the_alphabet_of_a_code(code: str, ref: str, request: Any) -> None:
    """Captures, refunds, refusals."""
    for status in ("COMPLETED", "DECLINED", "FAILED", "PENDING"):
        moved = {"id": ref, "status": status, "amount": {"currency_code": "EUR", "value": "9.99"},
                 "processor_response": {"response_code": code}}  # fmt: skip
        order = {"purchase_units": [{"payments": {"captures": [moved]}}]}
        check(paypal.outcome_of_reply(request, 201, {}, moved if request is REFUND else order))
        check(paypal.answer_of_capture(structs.replace(QUERY, intent="2AB"), 200, moved | {"id": "2AB"}))
    check(paypal.outcome_of_reply(request, 422, {}, {"name": code, "details": [{"issue": code}]}))


def test_codes_and_ids_of_gateways_pass() -> None:
    """What they document, as they write it."""
    for code in ("insufficient_funds", "INSTRUMENT_DECLINED", "5120", "expired_or_canceled_card", "R0"):
        assert code == code_in(code)
    for ref in ("ch_3MmlLrLkdIwHu7ix0snN0B15", "pi_3MtwBwLkdIwHu7ix28a3tqPa", "8RS40461BT637534R", "PP-D-2"):
        assert ref == reference_in(ref)


def test_an_id_that_was_drawn_is_never_taken_for_a_card() -> None:
    """The digits of these pass as a Mastercard's, a Visa's by chance; a charge without its id stays open."""
    for ref in ("ch_72392b2475905252923471aa", "3C4242424242424242"):
        assert ref == reference_in(ref)
    for bare in ("4242424242424242", "4242 4242 4242 4242", "4242-4242-4242-4242"):
        assert reference_in(bare) is None


# ---- over the wire

BIG = b'{"error":{"type":"card_error","code":"' + b"y" * 1_300_000 + b'"}}'
Make = Callable[[str], Any]


async def reply_of(make: Make, chunked: bool) -> tuple[Outcome, Outcome]:
    """What a call comes to at a gateway that answers with BIG, then one at the same gateway, well again."""
    big = True

    async def answer(request: web.Request) -> web.StreamResponse:
        if request.path.endswith("/token"):
            return web.json_response({"access_token": "A21", "expires_in": 32_400})
        if request.path.endswith("/account"):
            return web.json_response({"id": "acct_1", "object": "account"})
        if not big:
            money = {"currency_code": "EUR", "value": "9.99"}
            captured = {"id": "ch_1", "status": "COMPLETED", "amount": money}
            good = {"id": "ch_1", "object": "charge", "status": "succeeded", "amount": 999, "currency": "eur"}
            order = {"purchase_units": [{"payments": {"captures": [captured]}}]}
            return web.json_response(order if "checkout" in request.path else good)
        reply = web.StreamResponse(status=402)
        if chunked:
            reply.enable_chunked_encoding()
        else:
            reply.content_length = len(BIG)
        await reply.prepare(request)
        try:
            await reply.write(BIG)
        except ConnectionError:  # who reads no further closes
            pass
        return reply

    app = web.Application()
    app.router.add_route("*", "/{path:.*}", answer)
    async with TestServer(app) as server:
        gateway = make(str(server.make_url("")).rstrip("/"))
        await gateway.start()
        try:
            first = await gateway.charge(CHARGE, timeout_s=20)
            big = False
            return first, await gateway.charge(CHARGE, timeout_s=20)
        finally:
            await gateway.close()


@pytest.mark.parametrize("chunked", [False, True])
@pytest.mark.parametrize(
    "make",
    [
        SimulatedGateway, lambda url: StripeGateway("sk_test_1", url),
        lambda url: PayPalGateway("id", "secret", url),
    ],
    ids=["simulated", "stripe", "paypal"],
)
def test_a_giant_reply_is_a_doubt_and_the_next_call_goes_on(make: Make, chunked: bool) -> None:
    """1.3 MB are not read to their end: the payment is settled later, by the same key."""
    first, second = asyncio.run(reply_of(make, chunked))

    assert Ambiguous("bad_reply") == first
    assert Succeeded("ch_1") == second


def test_a_long_code_in_a_short_reply_is_a_decline_without_its_code() -> None:
    """The gateway refused, whatever it called that."""
    _, reply = stripe_error(402, "y" * 10_000, "card_error", "ch_1")
    del reply["error"]["payment_intent"]
    outcome = stripe.outcome_of_reply(CHARGE, 402, {}, orjson.loads(orjson.dumps(reply)))

    assert Declined("declined", "ch_1") == outcome
    reply["error"]["type"] = "invalid_request_error"
    assert Invalid("refused") == stripe.outcome_of_reply(CHARGE, 400, {}, reply)
