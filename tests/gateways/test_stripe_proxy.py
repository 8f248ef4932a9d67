"""The stand-in for Stripe's intents keeps what Stripe's documents promise and localstripe lacks."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest
from support.local_stripe import ASKS, ASKS_THEN_DECLINES, DECLINES, GOOD, LocalStripe, call
from support.stripe_proxy import INTENTS, StripeProxy

Params = list[tuple[str, str]]


@pytest.fixture(scope="module")
def stripe() -> Iterator[LocalStripe]:
    with LocalStripe() as server:
        yield server


@pytest.fixture
def proxy(stripe: LocalStripe) -> Iterator[StripeProxy]:
    with StripeProxy(stripe.url) as proxy:
        yield proxy


def wish(stripe: LocalStripe, card: str = GOOD, **more: str) -> Params:
    """An off-session intent over a newly saved card."""
    customer, _, method = stripe.saved(card).partition("/")
    params = {"amount": "999", "currency": "eur", "customer": customer, "payment_method": method,
              "confirm": "true", "off_session": "true", "metadata[ref]": f"ss1_{method}",
              "metadata[payment_id]": method, **more}  # fmt: skip
    return list(params.items())


def keyed(name: str) -> dict[str, str]:
    return {"Idempotency-Key": name}


def test_a_key_has_one_answer(stripe: LocalStripe, proxy: StripeProxy) -> None:
    """The same intent again; with another amount, or elsewhere, 400 `idempotency_error`; charged once."""
    params = wish(stripe)
    url = proxy.url + INTENTS
    status, first = call(url, params, keyed("k1"))
    assert (200, "succeeded") == (status, first["status"])
    assert (200, first) == call(url, params[::-1], keyed("k1"))
    assert 1 == proxy.keys.replays
    for path, other in ((INTENTS, [*params, ("description", "x")]), ("/v1/refunds", params)):
        status, said = call(proxy.url + path, other, keyed("k1"))
        assert (400, "idempotency_error") == (status, said["error"]["type"])
    assert 1 == stripe.charged()[dict(params)["payment_method"]]


def test_a_key_in_flight_is_a_conflict(stripe: LocalStripe, proxy: StripeProxy) -> None:
    """409 while the first is under way, its answer once it is over."""
    params, came, go_on = wish(stripe), threading.Event(), threading.Event()

    def hold(request: str) -> None:
        came.set()
        assert go_on.wait(60), request

    proxy.gate = hold
    first = threading.Thread(target=call, args=(proxy.url + INTENTS, params, keyed("k2")))
    first.start()
    assert came.wait(60)
    status, said = call(proxy.url + INTENTS, params, keyed("k2"))
    go_on.set()
    first.join(60)
    assert (409, "idempotency_key_in_use") == (status, said["error"]["code"])
    assert 200 == call(proxy.url + INTENTS, params, keyed("k2"))[0]
    assert 1 == stripe.charged()[dict(params)["payment_method"]]


def test_a_refused_request_uses_up_no_key(stripe: LocalStripe, proxy: StripeProxy) -> None:
    """Nothing began, so nothing is kept; without a key each request counts for itself."""
    params = wish(stripe)
    assert 400 == call(proxy.url + INTENTS, [*wish(stripe, amount="-1")], keyed("k3"))[0]
    assert 200 == call(proxy.url + INTENTS, params, keyed("k3"))[0]
    assert 200 == call(proxy.url + INTENTS, params)[0]
    assert 2 == stripe.charged()[dict(params)["payment_method"]]


def test_off_session_a_bank_that_wants_the_customer_refuses(stripe: LocalStripe, proxy: StripeProxy) -> None:
    """402 with the intent inside, a failed charge beside it, again under its key whatever became of it."""
    params = wish(stripe, ASKS)
    status, first = call(proxy.url + INTENTS, params, keyed("k4"))
    error = first["error"]
    intent = error["payment_intent"]
    assert (402, "card_error", "authentication_required") == (status, error["type"], error["code"])
    assert "requires_payment_method" == intent["status"]
    now = call(f"{proxy.url}{INTENTS}/{intent['id']}")[1]
    assert ("requires_payment_method", "authentication_required") == (
        now["status"], now["last_payment_error"]["code"])  # fmt: skip
    failed = call(f"{proxy.url}/v1/charges/{now['latest_charge']}")[1]
    assert ("failed", intent["id"], intent["metadata"]) == (
        failed["status"], failed["payment_intent"], failed["metadata"])  # fmt: skip

    assert "requires_action" == call(f"{proxy.url}{INTENTS}/{intent['id']}/confirm", [])[1]["status"]
    assert 200 == stripe.authenticate(intent["id"], success=True)[0]
    now = call(f"{proxy.url}{INTENTS}/{intent['id']}")[1]
    assert "succeeded" == now["status"]
    assert (402, first) == call(proxy.url + INTENTS, params, keyed("k4"))
    assert 1 == stripe.charged()[dict(params)["payment_method"]]


def test_on_session_it_waits_for_its_customer(stripe: LocalStripe, proxy: StripeProxy) -> None:
    """`requires_action`, as without off_session; who fails to prove who they are may be declined, too."""
    params = wish(stripe, ASKS_THEN_DECLINES, off_session="false")
    intent = call(proxy.url + INTENTS, params, keyed("k5"))[1]
    assert "requires_action" == intent["status"]
    asked = [("client_secret", intent["client_secret"]), ("success", "true")]
    status, said = call(f"{proxy.url}{INTENTS}/{intent['id']}/_authenticate", asked)
    assert (402, "card_declined") == (status, said["error"]["code"])


def test_a_decline_is_a_card_error_with_the_intent_inside(stripe: LocalStripe, proxy: StripeProxy) -> None:
    """The intent waits for another method; the words are on its failed charge."""
    status, said = call(proxy.url + INTENTS, wish(stripe, DECLINES), keyed("k6"))
    error = said["error"]
    assert (402, "card_error", "generic_decline") == (status, error["type"], error["decline_code"])
    assert "requires_payment_method" == error["payment_intent"]["status"]
    assert error["payment_intent"]["metadata"] == stripe.rows("charges")[error["charge"]]["metadata"]


def test_a_cancel_succeeds_or_says_why_not(stripe: LocalStripe, proxy: StripeProxy) -> None:
    """What waits is canceled; what has come to its end is refused, with the intent inside the error."""
    waits = call(proxy.url + INTENTS, wish(stripe, ASKS))[1]["error"]["payment_intent"]
    reason = [("cancellation_reason", "abandoned")]
    status, said = call(f"{proxy.url}{INTENTS}/{waits['id']}/cancel", reason)
    assert (200, "canceled", "abandoned") == (status, said["status"], said["cancellation_reason"])
    paid = call(proxy.url + INTENTS, wish(stripe))[1]
    status, said = call(f"{proxy.url}{INTENTS}/{paid['id']}/cancel", reason)
    assert (400, "payment_intent_unexpected_state", "succeeded") == (
        status, said["error"]["code"], said["error"]["payment_intent"]["status"])  # fmt: skip
    assert 400 == stripe.authenticate(waits["id"], success=True)[0]


def test_an_intent_and_its_charges_are_found_by_our_words(stripe: LocalStripe, proxy: StripeProxy) -> None:
    """Search and lists, newest first, narrowed by intent and time; where search is missing it is refused."""
    params = wish(stripe)
    intent = call(proxy.url + INTENTS, params)[1]
    query = f"?query=metadata['ref']:'{dict(params)['metadata[ref]']}'"
    for kind in ("payment_intents", "charges"):
        found = call(f"{proxy.url}/v1/{kind}/search{query}")[1]["data"]
        assert [dict(params)["payment_method"]] == [row["metadata"]["payment_id"] for row in found]
    listed = call(f"{proxy.url}/v1/charges?payment_intent={intent['id']}&created[gte]=1600000000")[1]
    assert [intent["latest_charge"]] == [row["id"] for row in listed["data"]]
    assert [] == call(f"{proxy.url}{INTENTS}?created[lt]=1600000000")[1]["data"]
    with StripeProxy(stripe.url, search=False) as elsewhere:
        assert 400 == call(f"{elsewhere.url}/v1/charges/search{query}")[0]


def test_refunds_by_intent_stop_at_what_was_charged(stripe: LocalStripe, proxy: StripeProxy) -> None:
    """A refund names intent and charge; one more than the charge has is refused."""
    intent = call(proxy.url + INTENTS, wish(stripe))[1]
    of_it = [("payment_intent", intent["id"])]
    status, refund = call(f"{proxy.url}/v1/refunds", [*of_it, ("amount", "400")])
    assert (200, intent["latest_charge"], intent["id"]) == (
        status, refund["charge"], refund["payment_intent"])  # fmt: skip
    assert 400 == call(f"{proxy.url}/v1/refunds", [*of_it, ("amount", "600")])[0]
    rest = [("charge", intent["latest_charge"]), ("amount", "599")]
    assert 200 == call(f"{proxy.url}/v1/refunds", rest)[0]
    status, said = call(f"{proxy.url}/v1/refunds", of_it)
    assert (400, "charge_already_refunded") == (status, said["error"]["code"])
