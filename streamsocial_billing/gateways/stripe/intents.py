"""PaymentIntents: what is sent, what each status and error means. Pure.

Rows: decision 0072. The same reading for replies, errors, questions, cancellations and webhooks. The client
secret that an intent bears is read nowhere.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from streamsocial_billing.domain.foreign_text import reference_in
from streamsocial_billing.domain.gateway_calls import (
    AUTHENTICATION_REQUIRED,
    CANCELED,
    PENDING,
    UNCAPTURED,
    Ambiguous,
    ChargeRequest,
    Declined,
    Found,
    Outcome,
    Succeeded,
    Waiting,
)
from streamsocial_billing.gateways.stripe.declines import decline_code, is_soft
from streamsocial_billing.gateways.stripe.shapes import (
    error_of,
    id_of,
    metadata_for,
    metadata_of,
    outcome_of_reply,
)

API_VERSION: Final = "2026-10-28.endive"
"""Sent with every request; the SDK's own, so that its types fit (a test compares them)."""
PREFIX: Final = "pi_"

UNDER_WAY: Final = {
    "processing": PENDING, "requires_confirmation": PENDING, "requires_action": AUTHENTICATION_REQUIRED,
    "requires_capture": UNCAPTURED,
}  # fmt: skip
"""Statuses that decide nothing; `requires_payment_method` is read by its error."""


def is_intent(ref: str | None) -> bool:
    """True for the id of a PaymentIntent."""
    return ref is not None and ref.startswith(PREFIX)


def by_intent(payment_method: str | None) -> bool:
    """True for `cus_1/pm_1`; a token, a source, a card, a customer alone are charged by the Charges API."""
    customer, _, method = (payment_method or "").partition("/")
    return customer.startswith("cus_") and method.startswith("pm_")


def customer_of(payment_method: str) -> str:
    """The customer of `cus_1/pm_1`."""
    return payment_method.partition("/")[0]


def params_for(request: ChargeRequest) -> dict[str, Any]:
    """An off-session payment, confirmed in the same call.

    Without `automatic_payment_methods` Stripe wants a `return_url`, as the account may allow methods that
    redirect; nobody is there to be redirected.
    """
    customer, _, method = request.payment_method.partition("/")
    return {
        "amount": request.amount_minor,
        "currency": request.currency.lower(),
        "customer": customer,
        "payment_method": method,
        "off_session": True,
        "confirm": True,
        "automatic_payment_methods": {"enabled": True, "allow_redirects": "never"},
        "metadata": metadata_for(request),
    }


# ---- what an intent says


def found_in_intent(intent: Mapping[str, Any]) -> Found | None:
    """An intent as an answer; None where it is not readable."""
    ref, amount, currency = reference_in(intent.get("id")), intent.get("amount"), intent.get("currency")
    status = status_of(intent)
    if status is None or ref is None:
        return None
    if type(amount) is not int or not isinstance(currency, str):
        return None
    words, error = metadata_of(dict(intent)), error_in(intent)
    said, reason = status
    return Found(
        gateway_ref=ref, status=said, reason=reason, amount_minor=amount, currency=currency.upper(),
        user_id=words.get("user_id"), payment_id=words.get("payment_id"),
        soft=said == "declined" and reason != CANCELED and is_soft(reason, error), intent=ref,
        intent_charge=charge_of(intent), canceled=reason == CANCELED,
    )  # fmt: skip


def status_of(intent: Mapping[str, Any]) -> tuple[str, str | None] | None:
    """`succeeded`, `declined`, `pending` or `uncaptured`, with its reason; None for a status not known."""
    said = intent.get("status")
    if said == "succeeded":
        return "succeeded", None
    if said == "canceled":
        return "declined", CANCELED
    if said == "requires_payment_method":
        error = error_in(intent)
        if not error:
            return "pending", PENDING
        return of_error(error)
    reason = UNDER_WAY.get(str(said))
    if reason is None:
        return None
    return ("uncaptured" if reason == UNCAPTURED else "pending"), reason


def of_error(error: Mapping[str, Any]) -> tuple[str, str]:
    """What an error of a payment says: its customer is wanted, or it was declined."""
    code = decline_code(error)
    return ("pending" if code == AUTHENTICATION_REQUIRED else "declined"), code


def error_in(intent: Mapping[str, Any]) -> Mapping[str, Any]:
    """`last_payment_error`, {} where there is none."""
    error = intent.get("last_payment_error")
    return error if isinstance(error, dict) else {}


def charge_of(intent: Mapping[str, Any]) -> str | None:
    """Its last charge: `latest_charge`, before API version 2022-11-15 the first of `charges`."""
    latest = intent.get("latest_charge")
    if latest is None:
        charges = intent.get("charges")
        rows = charges.get("data") if isinstance(charges, dict) else None
        latest = rows[0] if isinstance(rows, list) and rows else None
    return id_of(latest)


def intent_of(row: Mapping[str, Any]) -> str | None:
    """The intent that a charge, refund or dispute belongs to."""
    return id_of(row.get("payment_intent"))


# ---- what a call came to


def outcome_of_call(
    request: ChargeRequest, status: int, headers: Mapping[str, str], reply: dict[str, Any] | None
) -> Outcome:
    """The outcome of a reply to the call: by the intent, also where an error holds it, else by the status."""
    if status == 200 and reply is not None:
        return outcome_of_intent(request, reply)
    if status in (400, 402, 404) and reply is not None:
        error = error_of(reply)
        made = intent_in_error(error)
        if made is not None:
            return outcome_of_intent(request, made)
        if status == 402 and decline_code(error) == AUTHENTICATION_REQUIRED:
            return Ambiguous("intent_not_named", ask_only=True)  # it is there, to be found by our reference
    return outcome_of_reply(request, status, headers, reply)


def outcome_of_intent(request: ChargeRequest, intent: Mapping[str, Any]) -> Outcome:
    """The outcome of a reply that is an intent, or of the one inside an error."""
    found = found_in_intent(intent)
    if found is None or (found.amount_minor, found.currency) != (
        request.amount_minor, request.currency.upper(),
    ):  # fmt: skip
        return Ambiguous("bad_reply")
    ref, charge = found.gateway_ref, found.intent_charge
    if found.status == "succeeded":
        return Succeeded(ref, ref, charge)
    if found.status == "declined":
        return Declined(found.reason or "declined", ref, found.soft, ref, charge)
    return Waiting(found.reason or PENDING, ref, charge)


def intent_in_error(error: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """The intent inside an error, with the error as its last one where it names none; None: there is none."""
    intent = error.get("payment_intent")
    if not isinstance(intent, dict) or id_of(intent) is None:
        return None
    made = dict(intent)
    if not error_in(intent) and error.get("type") == "card_error":
        made["last_payment_error"] = error
    if charge_of(made) is None and isinstance(error.get("charge"), str):
        made["latest_charge"] = error["charge"]
    return made
