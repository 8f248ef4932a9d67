"""Stripe's webhooks: their signature, their table.

Written out instead of the SDK's `Webhook.construct_event`: that decodes the body before it hashes, tries
one secret at a time, and would load the SDK (docs.stripe.com/webhooks/signature, "Verify manually").
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

from streamsocial_billing.domain.gateway_calls import AUTHENTICATION_REQUIRED, Owner
from streamsocial_billing.gateways import moved
from streamsocial_billing.gateways.provider_event import (
    ProviderEvent,
    Subject,
    Unreadable,
    code_of,
    part_of,
    text_of,
)
from streamsocial_billing.gateways.stripe import intents
from streamsocial_billing.gateways.stripe.declines import SOFT
from streamsocial_billing.gateways.stripe.shapes import decline_reason, id_of, metadata_of

TOLERANCE_S: Final = 300
HEADER: Final = "Stripe-Signature"
MAX_PARTS: Final = 32
"""Signatures in one header: Stripe sends one for each secret that is valid now, two at most."""

TYPES: Final[dict[str, tuple[str, str | None]]] = {
    "payment_intent.succeeded": ("charge", None),
    "payment_intent.processing": ("charge", None),
    "payment_intent.requires_action": ("charge", None),
    "payment_intent.payment_failed": ("charge", None),
    "payment_intent.canceled": ("charge", None),
    "charge.succeeded": ("charge", None),
    "charge.failed": ("charge", "declined"),
    "charge.pending": ("charge", "pending"),
    "charge.refunded": ("refund", None),
    "refund.created": ("refund", None),
    "refund.updated": ("refund", None),
    "refund.failed": ("refund", None),
    "charge.refund.updated": ("refund", None),
    "charge.dispute.created": ("dispute", "pending"),
    "charge.dispute.funds_withdrawn": ("dispute", "succeeded"),
    "charge.dispute.funds_reinstated": ("dispute", "declined"),
    "charge.dispute.closed": ("dispute", None),
}
"""Kind and status by type; None: the object's own status, by STATUSES. What a refund or a dispute moved is
said by `gateways/moved.py`; a dispute's row counts only where it does not list its balance transactions."""

STATUSES: Final[dict[str, dict[str, str]]] = {
    "charge": {"succeeded": "succeeded", "pending": "pending", "failed": "declined"},
    "dispute": {
        "lost": "succeeded", "won": "declined", "warning_closed": "declined", "prevented": "declined",
    },
}  # fmt: skip


def signed(body: bytes, header: str, secrets: Sequence[str], now_s: float) -> bool:
    """True if one of the header's v1 signatures is that of body and time under one of the secrets.

    The time may lie 300 s from ours, in either direction. `header`: `t=1690000000,v1=hex[,v1=hex]`.
    """
    said = _said(header, now_s)
    if said is None:
        return False
    time, given = said
    signing = time.encode() + b"." + body
    found = False
    for secret in secrets:
        expected = hmac.new(secret.encode(), signing, hashlib.sha256).hexdigest().encode()
        for one in given:  # all of them, each in constant time
            found |= hmac.compare_digest(expected, one)
    return found


def may_be_signed(header: str, now_s: float) -> bool:
    """False if no body could make this header right."""
    return _said(header, now_s) is not None


def _said(header: str, now_s: float) -> tuple[str, list[bytes]] | None:
    """Time and signatures of the header; None if it is malformed, has none, or is of another time."""
    parts = [part.strip().partition("=") for part in header.split(",", MAX_PARTS)[:MAX_PARTS]]
    times = [value for name, _, value in parts if name == "t"]
    # a header is bytes: aiohttp hands on those that are not UTF-8 as surrogates
    given = [value.encode("utf-8", "surrogatepass") for name, _, value in parts if name == "v1"]
    if not given or not all(equals for _, equals, _ in parts):
        return None
    if len(times) != 1 or not (times[0].isascii() and times[0].isdigit()) or len(times[0]) > 12:
        return None
    return None if abs(now_s - int(times[0])) > TOLERANCE_S else (times[0], given)


def subject(message: Mapping[str, Any]) -> Subject | None:
    """What an event is about, None if it says nothing of a payment that we map."""
    found = _object(message)
    if found is None:
        return None
    kind, it = found
    return Subject(kind=kind, charge_ref=None if kind == "charge" else _charge_ref(it), words=words_of(it))


def read(message: Mapping[str, Any]) -> ProviderEvent | None:
    """What an event says, None if it says nothing of a payment that we map; raises Unreadable."""
    found = _object(message)
    if found is None:
        return None
    kind, it = found
    if it.get("object") == "payment_intent":
        return _intent(message, it)
    gone = _dispute(text_of(message, "type"), it) if kind == "dispute" else None
    status = gone.status if gone is not None else TYPES[text_of(message, "type")][1] or _status(kind, it)
    declined = status == "declined" and kind != "dispute"
    reason = code_of(decline_reason(dict(it)), "declined") if declined else None
    amount = it.get("amount")
    mapped = ProviderEvent(
        event_id=text_of(message, "id"), account=str(message.get("account") or ""), kind=kind, status=status,
        reason=code_of(it.get("reason"), "disputed") if kind == "dispute" else reason,
        soft=kind == "charge" and reason in SOFT, gateway_ref=text_of(it, "id"),
        charge_ref=None if kind == "charge" else _charge_ref(it),
        amount_minor=amount if type(amount) is int else None, currency=text_of(it, "currency").upper(),
        occurred_at=_created_ms(message), words=words_of(it), moved=gone,
    )  # fmt: skip
    return _of_intent(mapped, it) if kind == "charge" else mapped


def _of_intent(mapped: ProviderEvent, charge: Mapping[str, Any]) -> ProviderEvent:
    """A charge that an intent made counts as the intent; its failure is none while its customer is wanted."""
    intent = intents.intent_of(charge)
    if intent is None:
        return mapped
    mapped = replace(mapped, gateway_ref=intent, intent=intent, intent_charge=mapped.gateway_ref)
    if mapped.reason == AUTHENTICATION_REQUIRED:
        return replace(mapped, status="pending", soft=False)
    return mapped


def _intent(message: Mapping[str, Any], it: Mapping[str, Any]) -> ProviderEvent:
    """What a message about an intent says, by the intent's own status: the name of the message is older."""
    found = intents.found_in_intent(it)
    if found is None:
        raise Unreadable("an intent with a status, an id or money that is not known")
    wanted = found.status == "pending" and found.reason == AUTHENTICATION_REQUIRED
    declined = found.status == "declined"
    return ProviderEvent(
        event_id=text_of(message, "id"), account=str(message.get("account") or ""), kind="charge",
        status=found.status if found.status in ("succeeded", "declined") else "pending",
        reason=code_of(found.reason, "declined") if wanted or declined else None, soft=found.soft,
        gateway_ref=found.gateway_ref, amount_minor=found.amount_minor, currency=found.currency,
        occurred_at=_created_ms(message), words=words_of(it), intent=found.intent,
        intent_charge=found.intent_charge, canceled=found.canceled,
    )  # fmt: skip


def _object(message: Mapping[str, Any]) -> tuple[str, Mapping[str, Any]] | None:
    """Kind and object of an event, None if it says nothing of a payment that we map."""
    row = TYPES.get(text_of(message, "type"))
    if row is None:
        return None
    it = part_of(part_of(message, "data"), "object")
    if it.get("object") == "charge" and row[0] == "refund":
        refund = _newest_refund(it)
        return None if refund is None else (row[0], refund)
    return row[0], it


def _dispute(name: str, it: Mapping[str, Any]) -> moved.Moved:
    """What it moved: by its balance transactions, else as the type or the end of the dispute says."""
    try:
        listed = moved.stripe_dispute(it)
    except ValueError as error:
        raise Unreadable(f"a dispute whose {error} are not known") from error
    if listed is not None:
        return listed
    amount, status = it.get("amount"), TYPES[name][1]
    if status is None:
        _status("dispute", it)
        return moved.stripe_dispute_by_status(it)
    whole = amount if type(amount) is int and status != "pending" else 0
    return moved.Moved(status, whole, whole if status == "declined" else 0)


def words_of(it: Mapping[str, Any]) -> Owner | None:
    """Our words in an object's metadata, None unless all of them are there."""
    said = metadata_of(dict(it))
    try:
        return Owner(said["user_id"], said["payment_id"], said["ref"])
    except KeyError:
        return None


def _status(kind: str, it: Mapping[str, Any]) -> str:
    if kind == "refund":
        gone = moved.stripe_refund(it)
        said = None if gone is None else gone.status
    else:
        said = STATUSES[kind].get(str(it.get("status")))
    if said is None:
        raise Unreadable(f"a {kind} with a status that is not known")
    return "pending" if kind == "charge" and it.get("captured") is False else said


def _newest_refund(charge: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """What a charge that was refunded names first.

    Since API version 2022-11-15 it names none; `refund.created` then is the message that says it.
    """
    refunds = charge.get("refunds")
    rows = refunds.get("data") if isinstance(refunds, dict) else None
    return rows[0] if isinstance(rows, list) and rows and isinstance(rows[0], dict) else None


def _charge_ref(it: Mapping[str, Any]) -> str | None:
    """What a refund or a dispute is of: the intent, where its charge was made by one."""
    return intents.intent_of(it) or id_of(it.get("charge"))


def _created_ms(message: Mapping[str, Any]) -> int:
    created = message.get("created")
    if type(created) is not int:
        raise Unreadable("created is not a number of seconds")
    return created * 1000
