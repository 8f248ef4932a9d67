"""PayPal's webhooks: what their signature needs, their table."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final

from streamsocial_billing.gateways.moved import Moved
from streamsocial_billing.gateways.paypal.amounts import minor_of
from streamsocial_billing.gateways.paypal.own_fields import words_on
from streamsocial_billing.gateways.paypal.replies import SOFT
from streamsocial_billing.gateways.provider_event import (
    ProviderEvent,
    Subject,
    Unreadable,
    code_of,
    part_of,
    text_of,
)

HEADERS: Final[dict[str, tuple[str, re.Pattern[str]]]] = {
    "PAYPAL-AUTH-ALGO": ("auth_algo", re.compile(r"[a-zA-Z0-9]{1,100}")),
    "PAYPAL-CERT-URL": ("cert_url", re.compile(r"https://(?:[a-zA-Z0-9-]{1,63}\.){1,4}paypal\.com/[!-~]{1,300}")),
    "PAYPAL-TRANSMISSION-ID": ("transmission_id", re.compile(r"[!-~]{1,50}")),
    "PAYPAL-TRANSMISSION-SIG": ("transmission_sig", re.compile(r"[!-~]{1,500}")),
    "PAYPAL-TRANSMISSION-TIME": ("transmission_time", re.compile(r"[0-9TtZz:.+-]{20,64}")),
}
"""Field of the question by header, and what it may hold: anything else is refused without asking.

Who forges a message names a certificate of their own; PayPal's lie on its hosts.
"""

TYPES: Final[dict[str, tuple[str, str | None]]] = {
    "PAYMENT.CAPTURE.COMPLETED": ("charge", "succeeded"),
    "PAYMENT.CAPTURE.DENIED": ("charge", "declined"),
    "PAYMENT.CAPTURE.DECLINED": ("charge", "declined"),
    "PAYMENT.CAPTURE.PENDING": ("charge", "pending"),
    "PAYMENT.CAPTURE.REFUNDED": ("refund", None),
    "PAYMENT.REFUND.PENDING": ("refund", "pending"),
    "PAYMENT.REFUND.FAILED": ("refund", "declined"),
    "PAYMENT.CAPTURE.REVERSED": ("dispute", "succeeded"),
    "CUSTOMER.DISPUTE.CREATED": ("dispute", "pending"),
    "CUSTOMER.DISPUTE.UPDATED": ("dispute", "pending"),
    "CUSTOMER.DISPUTE.RESOLVED": ("dispute", "declined"),
}
"""Kind and status by type; None: the object's own status, by REFUNDS. A case (CUSTOMER.DISPUTE) moves no
money under its own id: what a lost one costs is told as a reversal or a refund, with a reference of its own.
"""

REFUNDS: Final = {
    "COMPLETED": "succeeded", "PENDING": "pending", "FAILED": "declined", "CANCELLED": "declined",
    "REVERSED": "declined",
}  # fmt: skip
_CAPTURE: Final = re.compile(r"/v[12]/payments/(?:captures?|sale)/([A-Za-z0-9-]{1,64})$")


def question(headers: Mapping[str, str]) -> dict[str, str] | None:
    """What verify-webhook-signature asks of the headers, None if one is missing or cannot be right."""
    asked = {}
    for header, (name, allowed) in HEADERS.items():
        value = headers.get(header, "")
        if not allowed.fullmatch(value):
            return None
        asked[name] = value
    return asked


def subject(message: Mapping[str, Any]) -> Subject | None:
    """What an event is about, None if it says nothing of a payment that we map."""
    row = TYPES.get(text_of(message, "event_type"))
    if row is None:
        return None
    it, case = part_of(message, "resource"), _is_case(message)
    return Subject(
        kind=row[0], charge_ref=_charge_ref(row[0], it, case=case), words=None if case else words_on(it)
    )


def read(message: Mapping[str, Any]) -> ProviderEvent | None:
    """What an event says, None if it says nothing of a payment that we map; raises Unreadable."""
    row = TYPES.get(text_of(message, "event_type"))
    if row is None:
        return None
    kind, status = row
    it, case = part_of(message, "resource"), _is_case(message)
    status = status or _status(it)
    reason = _reason(it, status, case=case, kind=kind)
    money = part_of(it, "dispute_amount" if case else "amount")
    minor = minor_of(dict(money))
    return ProviderEvent(
        event_id=text_of(message, "id"), kind=kind, status=status, reason=reason,
        soft=kind == "charge" and (reason or "").upper() in SOFT,
        gateway_ref=text_of(it, "dispute_id" if case else "id"),
        charge_ref=_charge_ref(kind, it, case=case),
        amount_minor=None if minor is None else minor[0],
        currency=text_of(money, "currency_code").upper(),
        occurred_at=_created_ms(message), words=None if case else words_on(it),
        moved=Moved(status, 0, 0) if case else None,
        intent=text_of(it, "id") if kind == "charge" and status == "pending" else None,
    )  # fmt: skip


def _is_case(message: Mapping[str, Any]) -> bool:
    return text_of(message, "event_type").startswith("CUSTOMER.DISPUTE.")


def _charge_ref(kind: str, it: Mapping[str, Any], *, case: bool) -> str | None:
    """The capture that a refund or a dispute is about."""
    return _disputed(it) if case else None if kind == "charge" else _refunded(it)


def _status(it: Mapping[str, Any]) -> str:
    said = REFUNDS.get(str(it.get("status")))
    if said is None:
        raise Unreadable("a refund with a status that is not known")
    return said


def _reason(it: Mapping[str, Any], status: str, *, case: bool, kind: str) -> str | None:
    if case:
        outcome = it.get("dispute_outcome")
        code = outcome.get("outcome_code") if isinstance(outcome, dict) else it.get("reason")
        return code_of(code, "disputed")
    if kind == "dispute":
        return "reversed"
    if status != "declined":
        return None
    answered, details = it.get("processor_response"), it.get("status_details")
    code = answered.get("response_code") if isinstance(answered, dict) else None
    why = details.get("reason") if isinstance(details, dict) else None
    return code_of(code or why, "declined")


def _refunded(it: Mapping[str, Any]) -> str | None:
    """The capture that a refund's link `up` names."""
    links = it.get("links")
    for link in links if isinstance(links, list) else ():
        if isinstance(link, dict) and link.get("rel") == "up" and isinstance(link.get("href"), str):
            found = _CAPTURE.search(link["href"])
            if found is not None:
                return found[1]
    return None


def _disputed(it: Mapping[str, Any]) -> str | None:
    """The capture that a case is about; a case about several is about no single payment of ours."""
    rows = it.get("disputed_transactions")
    if not isinstance(rows, list) or len(rows) != 1 or not isinstance(rows[0], dict):
        return None
    ref = rows[0].get("seller_transaction_id")
    return ref if isinstance(ref, str) and re.fullmatch(r"[A-Za-z0-9-]{1,64}", ref) else None


def _created_ms(message: Mapping[str, Any]) -> int:
    try:
        return int(datetime.fromisoformat(text_of(message, "create_time")).timestamp() * 1000)
    except (ValueError, OverflowError) as error:
        raise Unreadable("create_time is not a time") from error
