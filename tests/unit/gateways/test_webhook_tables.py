"""What each message of a gateway becomes, row by row."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.webhook_payloads import (
    CHARGE_KEY,
    METADATA,
    PAID,
    REFUND_KEY,
    USER,
    paypal_capture,
    paypal_case,
    paypal_event,
    paypal_refund,
    stripe_charge,
    stripe_dispute,
    stripe_event,
    stripe_intent,
    stripe_refund,
)

from streamsocial_billing.domain.gateway_calls import Owner
from streamsocial_billing.domain.payment_identity import gateway_key_of
from streamsocial_billing.gateways.paypal import webhook as paypal
from streamsocial_billing.gateways.paypal.own_fields import custom_ids
from streamsocial_billing.gateways.provider_event import (
    PaymentIds,
    ProviderEvent,
    Unreadable,
    gateway_event,
    gateway_events,
    ids_by_charge,
    ids_of,
)
from streamsocial_billing.gateways.stripe import webhook as stripe

Row = tuple[str, str, str | None, bool, str, str | None, int]
"""Kind, status, reason, soft, gateway_ref, charge_ref, amount."""


def row(mapped: ProviderEvent | None) -> Row:
    assert mapped is not None
    assert mapped.amount_minor is not None
    return (
        mapped.kind, mapped.status, mapped.reason, mapped.soft, mapped.gateway_ref, mapped.charge_ref,
        mapped.amount_minor,
    )  # fmt: skip


DECLINED = {"status": "failed", "failure_code": "card_declined", "paid": False}
STRIPE: list[tuple[str, dict[str, Any], Row]] = [
    ("charge.succeeded", stripe_charge(), ("charge", "succeeded", None, False, "ch_1", None, 999)),
    ("charge.succeeded", stripe_charge(captured=False),
     ("charge", "pending", None, False, "ch_1", None, 999)),
    ("charge.pending", stripe_charge(status="pending"),
     ("charge", "pending", None, False, "ch_1", None, 999)),
    ("charge.failed", stripe_charge(**DECLINED, outcome={"reason": "insufficient_funds"}),
     ("charge", "declined", "insufficient_funds", True, "ch_1", None, 999)),
    ("charge.failed", stripe_charge(**DECLINED, outcome=None),
     ("charge", "declined", "card_declined", False, "ch_1", None, 999)),
    ("charge.refunded", stripe_charge(refunds={"object": "list", "data": [stripe_refund()]}),
     ("refund", "succeeded", None, False, "re_1", "ch_1", 300)),
    ("refund.created", stripe_refund(status="pending"),
     ("refund", "pending", None, False, "re_1", "ch_1", 300)),
    ("refund.created", stripe_refund(status="requires_action"),
     ("refund", "pending", None, False, "re_1", "ch_1", 300)),
    ("refund.updated", stripe_refund(), ("refund", "succeeded", None, False, "re_1", "ch_1", 300)),
    ("charge.refund.updated", stripe_refund(status="canceled"),
     ("refund", "declined", "declined", False, "re_1", "ch_1", 300)),
    ("refund.failed", stripe_refund(status="failed", failure_reason="expired_or_canceled_card"),
     ("refund", "declined", "expired_or_canceled_card", False, "re_1", "ch_1", 300)),
    ("charge.dispute.created", stripe_dispute(),
     ("dispute", "pending", "fraudulent", False, "du_1", "ch_1", 999)),
    ("charge.dispute.created", stripe_dispute(charge=stripe_charge()),
     ("dispute", "pending", "fraudulent", False, "du_1", "ch_1", 999)),
    ("charge.dispute.funds_withdrawn", stripe_dispute(),
     ("dispute", "succeeded", "fraudulent", False, "du_1", "ch_1", 999)),
    ("charge.dispute.funds_reinstated", stripe_dispute(status="won"),
     ("dispute", "declined", "fraudulent", False, "du_1", "ch_1", 999)),
    ("charge.dispute.closed", stripe_dispute(status="lost"),
     ("dispute", "succeeded", "fraudulent", False, "du_1", "ch_1", 999)),
    ("charge.dispute.closed", stripe_dispute(status="won"),
     ("dispute", "declined", "fraudulent", False, "du_1", "ch_1", 999)),
    ("charge.dispute.closed", stripe_dispute(status="warning_closed"),
     ("dispute", "declined", "fraudulent", False, "du_1", "ch_1", 999)),
    ("charge.dispute.created", stripe_dispute(payment_intent="pi_1"),
     ("dispute", "pending", "fraudulent", False, "du_1", "pi_1", 999)),
    ("refund.created", stripe_refund(payment_intent="pi_1"),
     ("refund", "succeeded", None, False, "re_1", "pi_1", 300)),
    ("payment_intent.succeeded", stripe_intent(), ("charge", "succeeded", None, False, "pi_1", None, 999)),
    ("payment_intent.processing", stripe_intent(status="processing"),
     ("charge", "pending", None, False, "pi_1", None, 999)),
    ("payment_intent.requires_action", stripe_intent(status="requires_action"),
     ("charge", "pending", "authentication_required", False, "pi_1", None, 999)),
    ("payment_intent.payment_failed",
     stripe_intent(status="requires_payment_method", last_payment_error={"decline_code": "lost_card"}),
     ("charge", "declined", "lost_card", False, "pi_1", None, 999)),
    ("payment_intent.canceled", stripe_intent(status="canceled"),
     ("charge", "declined", "canceled", False, "pi_1", None, 999)),
]  # fmt: skip

CAPTURE, REFUND = "42311647XV020574X", "1JU08902781691411"
PAYPAL: list[tuple[str, dict[str, Any], Row]] = [
    ("PAYMENT.CAPTURE.COMPLETED", paypal_capture(),
     ("charge", "succeeded", None, False, CAPTURE, None, 999)),
    ("PAYMENT.CAPTURE.PENDING", paypal_capture(status="PENDING"),
     ("charge", "pending", None, False, CAPTURE, None, 999)),
    ("PAYMENT.CAPTURE.DENIED", paypal_capture(status="DECLINED"),
     ("charge", "declined", "declined", False, CAPTURE, None, 999)),
    ("PAYMENT.CAPTURE.DECLINED",
     paypal_capture(status="DECLINED", processor_response={"response_code": "5120"}),
     ("charge", "declined", "5120", True, CAPTURE, None, 999)),
    ("PAYMENT.CAPTURE.REFUNDED", paypal_refund(),
     ("refund", "succeeded", None, False, REFUND, CAPTURE, 300)),
    ("PAYMENT.CAPTURE.REFUNDED", paypal_refund(status="PENDING"),
     ("refund", "pending", None, False, REFUND, CAPTURE, 300)),
    ("PAYMENT.REFUND.PENDING", paypal_refund(status="PENDING"),
     ("refund", "pending", None, False, REFUND, CAPTURE, 300)),
    ("PAYMENT.REFUND.FAILED", paypal_refund(status="FAILED", status_details={"reason": "ECHECK"}),
     ("refund", "declined", "echeck", False, REFUND, CAPTURE, 300)),
    ("PAYMENT.CAPTURE.REVERSED", paypal_refund(),
     ("dispute", "succeeded", "reversed", False, REFUND, CAPTURE, 300)),
    ("CUSTOMER.DISPUTE.CREATED", paypal_case(),
     ("dispute", "pending", "merchandise_or_service_not_received", False, "PP-D-27803", CAPTURE, 999)),
    ("CUSTOMER.DISPUTE.UPDATED", paypal_case(status="UNDER_REVIEW"),
     ("dispute", "pending", "merchandise_or_service_not_received", False, "PP-D-27803", CAPTURE, 999)),
    ("CUSTOMER.DISPUTE.RESOLVED", paypal_case(dispute_outcome={"outcome_code": "RESOLVED_BUYER_FAVOUR"}),
     ("dispute", "declined", "resolved_buyer_favour", False, "PP-D-27803", CAPTURE, 999)),
]  # fmt: skip


@pytest.mark.parametrize(("kind", "it", "expected"), STRIPE)
def test_each_message_of_stripe_has_one_meaning(kind: str, it: dict[str, Any], expected: Row) -> None:
    """Kind, status, reason, references, amount; the time is Stripe's, in milliseconds."""
    mapped = stripe.read(stripe_event(kind, it))
    assert expected == row(mapped)
    assert mapped is not None
    assert ("evt_1Nabc", "EUR", 1_764_600_000_000) == (mapped.event_id, mapped.currency, mapped.occurred_at)


@pytest.mark.parametrize(("kind", "it", "expected"), PAYPAL)
def test_each_message_of_paypal_has_one_meaning(kind: str, it: dict[str, Any], expected: Row) -> None:
    """Kind, status, reason, references, amount; the time is PayPal's, in milliseconds."""
    mapped = paypal.read(paypal_event(kind, it))
    assert expected == row(mapped)
    assert mapped is not None
    assert ("EUR", 1_764_600_000_000) == (mapped.currency, mapped.occurred_at)


def movements(*amounts: int, **more: object) -> list[dict[str, Any]]:
    """The balance transactions of a dispute: minor units, withdrawn ones negative; 15.00 are its fee."""
    return [
        {"id": f"txn_{number}", "object": "balance_transaction", "amount": amount, "currency": "eur",
         "fee": 1500 if amount < 0 else 0, "type": "adjustment", **more}
        for number, amount in enumerate(amounts)
    ]  # fmt: skip


WITHDRAWN, REINSTATED = "charge.dispute.funds_withdrawn", "charge.dispute.funds_reinstated"
DISPUTES: list[tuple[str, str, tuple[int, ...], list[tuple[str, int]]]] = [
    ("charge.dispute.created", "warning_needs_response", (), [("pending", 999)]),
    ("charge.dispute.closed", "warning_closed", (), [("pending", 999)]),
    ("charge.dispute.closed", "lost", (), [("pending", 999)]),
    ("charge.dispute.created", "needs_response", (-500,), [("succeeded", 500)]),
    (WITHDRAWN, "warning_under_review", (-500,), [("succeeded", 500)]),
    (REINSTATED, "under_review", (-500, 200), [("succeeded", 500), ("declined", 200)]),
    ("charge.dispute.closed", "lost", (-500, 200), [("succeeded", 500), ("declined", 200)]),
    ("charge.dispute.closed", "won", (-500, 500), [("succeeded", 500), ("declined", 500)]),
    (WITHDRAWN, "needs_response", (-500, 500, -500), [("succeeded", 1000), ("declined", 500)]),
]


@pytest.mark.parametrize(("kind", "status", "amounts", "expected"), DISPUTES)
def test_row_what_a_dispute_moved_is_what_its_balance_transactions_say(
    kind: str, status: str, amounts: tuple[int, ...], expected: list[tuple[str, int]]
) -> None:
    """Never its type or its status: an inquiry moves nothing, a lost one may have been reinstated in part."""
    it = stripe_dispute(status=status, balance_transactions=movements(*amounts))
    mapped = stripe.read(stripe_event(kind, it))
    assert mapped is not None
    events = gateway_events("stripe", mapped, PaymentIds(USER, charge_id=PAID))

    assert expected == [(event.status, event.amount_minor) for event in events]
    assert len(events) == len({event.event_id for event in events})


def test_row_a_dispute_of_an_account_in_another_currency_is_followed_by_shares() -> None:
    """The balance is in dollars, the charge in euro: 2/5 of it came back."""
    rows = movements(-1100, 440, currency="usd")
    mapped = stripe.read(stripe_event(REINSTATED, stripe_dispute(balance_transactions=rows, amount=500)))
    assert mapped is not None
    events = gateway_events("stripe", mapped, PaymentIds(USER, charge_id=PAID))

    assert [("succeeded", 500, "EUR"), ("declined", 200, "EUR")] == [
        (event.status, event.amount_minor, event.currency) for event in events
    ]


def test_row_a_case_at_paypal_moves_nothing_under_its_own_id() -> None:
    """However it is resolved: what it costs comes under another one."""
    mapped = paypal.read(paypal_event("CUSTOMER.DISPUTE.RESOLVED", paypal_case()))
    assert mapped is not None
    events = gateway_events("paypal", mapped, PaymentIds(USER, charge_id=PAID))
    assert ["pending"] == [one.status for one in events]


@pytest.mark.parametrize(
    ("kind", "it"),
    [
        ("refund.failed", stripe_refund(status="failed", failure_reason="lost_or_stolen_card")),
        ("refund.updated", stripe_refund(failure_balance_transaction="txn_9")),
        ("charge.refund.updated", stripe_refund(status="canceled")),
        ("PAYMENT.REFUND.FAILED", paypal_refund(status="FAILED")),
        ("PAYMENT.CAPTURE.REFUNDED", paypal_refund(status="FAILED")),
        ("PAYMENT.CAPTURE.REFUNDED", paypal_refund(status="REVERSED")),
    ],
)
def test_row_a_refund_that_failed_is_declined_however_it_is_said(kind: str, it: dict[str, Any]) -> None:
    """By its status, or by the balance transaction that gives its amount back."""
    at_paypal = kind.startswith("PAYMENT.")
    mapped = paypal.read(paypal_event(kind, it)) if at_paypal else stripe.read(stripe_event(kind, it))
    assert mapped is not None
    assert ("refund", "declined") == (mapped.kind, mapped.status)


def test_every_type_of_the_tables_is_tried() -> None:
    """No row is without a message."""
    assert set(stripe.TYPES) == {kind for kind, _, _ in STRIPE}
    assert set(paypal.TYPES) == {kind for kind, _, _ in PAYPAL}


def test_what_says_nothing_of_a_payment_is_passed_over() -> None:
    """Other types; a refunded charge that does not name the refund: `refund.created` does."""
    assert stripe.read(stripe_event("customer.created", {"id": "cus_1"})) is None
    assert stripe.read(stripe_event("charge.refunded", stripe_charge(refunded=True))) is None
    assert paypal.read(paypal_event("CHECKOUT.ORDER.APPROVED", {"id": "O1"})) is None


def asked(
    message: Mapping[str, Any], read: Callable[[Mapping[str, Any]], ProviderEvent | None]
) -> PaymentIds | None:
    mapped = read(message)
    assert mapped is not None
    return ids_of(mapped)


def test_a_charge_or_refund_of_ours_says_whose_it_is() -> None:
    """User, payment and our reference come from the words of our own call."""
    charge, refund = PaymentIds(USER, PAID, CHARGE_KEY), PaymentIds(USER, "r-1", REFUND_KEY)
    assert charge == asked(stripe_event("charge.succeeded", stripe_charge()), stripe.read)
    assert refund == asked(stripe_event("refund.created", stripe_refund()), stripe.read)
    assert charge == asked(paypal_event("PAYMENT.CAPTURE.COMPLETED", paypal_capture()), paypal.read)
    assert refund == asked(paypal_event("PAYMENT.CAPTURE.REFUNDED", paypal_refund()), paypal.read)


def test_a_refund_that_echoes_its_charges_words_is_not_ours_but_the_charges() -> None:
    """PayPal may put the capture's `custom_id` on a refund made at its site: it settles none of ours."""
    it = paypal_refund(custom_id=f"{CHARGE_KEY}:{USER}:{PAID}")
    expected = PaymentIds(USER, charge_id=PAID)
    assert expected == asked(paypal_event("PAYMENT.CAPTURE.REFUNDED", it), paypal.read)


def test_row_words_that_do_not_fit_into_127_characters_say_whose_it_is() -> None:
    """Both ids of 64 characters: the reference in `invoice_id` proves what `custom_id` says."""
    user, payment = "u" * 64, "p" * 64
    for kind, action, it in [
        ("PAYMENT.CAPTURE.COMPLETED", "charge", paypal_capture()),
        ("PAYMENT.CAPTURE.REFUNDED", "refund", paypal_refund()),
    ]:
        ref = gateway_key_of(user, action, payment)
        words = {"invoice_id": ref, "custom_id": custom_ids(ref, user, payment)[0]}
        assert PaymentIds(user, payment, ref) == asked(paypal_event(kind, it | words), paypal.read)


@pytest.mark.parametrize(
    "metadata",
    [{}, None, [], {"user_id": USER}, METADATA | {"ref": "ss1_other"}, METADATA | {"user_id": "bob"},
     {"user_id": 7, "payment_id": PAID, "ref": CHARGE_KEY}],
)  # fmt: skip
def test_words_that_are_not_ours_name_nobody(metadata: object) -> None:
    """Our reference is a function of user and payment: words that look alike do not pass."""
    message = stripe_event("charge.succeeded", stripe_charge(metadata=metadata))
    assert asked(message, stripe.read) is None


def test_a_dispute_is_whose_its_charge_is() -> None:
    """Asked for by the charge; foreign words there name nobody."""
    assert asked(stripe_event("charge.dispute.created", stripe_dispute()), stripe.read) is None
    assert PaymentIds(USER, charge_id=PAID) == ids_by_charge(Owner(USER, PAID, CHARGE_KEY))
    assert ids_by_charge(Owner(USER, PAID, "ss1_other")) is None


def test_a_card_number_does_not_get_into_a_record() -> None:
    """Only known fields are carried, and what is no code is none: the next one counts."""
    card = "4242424242424242"
    it = stripe_charge(**DECLINED, outcome={"reason": f"card {card}"}, description=card, failure_message=card)
    mapped = stripe.read(stripe_event("charge.failed", it, note=card))
    assert mapped is not None
    of = ids_of(mapped)
    assert of is not None
    record = gateway_event("stripe", mapped, of).to_bytes()
    assert card.encode() not in record
    assert b'"reason":"card_declined"' in record


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda part: st.lists(part) | st.dictionaries(st.text(), part), max_leaves=8,
)  # fmt: skip


@given(st.data())
def test_a_message_with_anything_in_a_known_field_is_read_or_unreadable(data: st.DataObject) -> None:
    """No value in no field leads to another exception."""
    read, (kind, it, _) = data.draw(st.sampled_from(
        [(stripe.read, row) for row in STRIPE] + [(paypal.read, row) for row in PAYPAL]
    ))  # fmt: skip
    message = (stripe_event if read is stripe.read else paypal_event)(kind, dict(it))
    part = data.draw(st.sampled_from([message, message.get("resource") or message["data"]["object"]]))
    part[data.draw(st.sampled_from(sorted(part)))] = data.draw(JSON)
    try:
        read(message)
    except Unreadable:
        pass
