"""The entry of a payment through its life: made by the first event, changed by each try, until it is final.

Pure: no await, no I/O, no clock; nothing that comes in is changed.
"""

from __future__ import annotations

from typing import Final

from msgspec import UNSET

from streamsocial_billing.domain.gateway_calls import AUTHENTICATION_REQUIRED
from streamsocial_billing.domain.known import Received
from streamsocial_billing.domain.outcomes import Called, Verdict
from streamsocial_billing.domain.payment_identity import FINGERPRINT_VERSION, KEY_VERSION, fingerprint
from streamsocial_billing.domain.statuses import OPEN
from tables.payments import PaymentEntry, SettledBy, SettledRow

SCHEDULE_S: Final = (5, 30, 120, 600, 3_600, 21_600, *[86_400] * 5)
"""Pauses before the tries of an unknown payment (payments.md, "Outcomes"); after the last it is parked."""
FIRST_LOOK_MS: Final = 600_000
LOOK_MS: Final = 21_600_000
"""When an intent that waits for its customer is asked for: messages of the gateway come sooner."""
PATIENCE_MS: Final = 259_200_000
"""How long it waits, if nothing else is set."""
LONGEST_WISH_S: Final = 86_400
"""A gateway may ask for patience, but not for more than a day of it."""


def first_entry(
    received: Received, called: Called, now_ms: int, known_fingerprint: str | None = None
) -> PaymentEntry:
    """The entry of a payment whose first event was just handled.

    What was found must be ambiguous also where an earlier delivery of this event may have called the gateway
    before a crash: of such a call nothing is stored, so nothing proves that it was not sent.
    """
    event, appended_ms, found = received.payment, received.appended_ms, called.found
    wants_customer = found.reason == AUTHENTICATION_REQUIRED and found.status == "unknown"
    due_at = now_ms + SCHEDULE_S[0] * 1000 if found.status == "unknown" and not wants_customer else None
    not_before = None if due_at is None else _wish(found.retry_after_s, now_ms)
    entry: PaymentEntry = {
        "fingerprint": known_fingerprint or fingerprint(event),
        "fingerprint_version": FINGERPRINT_VERSION,
        "key_version": KEY_VERSION,
        "action": event.action,
        "product": event.product,
        "status": found.status,
        "reason": found.reason,
        "gateway": event.gateway,
        "gateway_account": called.account,
        "gateway_ref": found.gateway_ref,
        "amount_minor": event.amount_minor,
        "currency": event.currency,
        "refunded_minor": 0,
        "reserved_minor": 0,
        "payment_method": event.payment_method,
        "business_ref": event.business_ref,
        "refund_of": event.refund_of,
        "charge_ref": None,
        "conflicts_with": found.conflicts_with,
        "origin": "event",
        "soft": found.soft,
        "attempts": called.calls,
        "ever_ambiguous": found.ambiguous,
        "ask_only": found.ask_only,
        "requested_at": event.requested_at,
        "first_seen_at": appended_ms,
        "window_from": appended_ms,
        "absent_at": None,
        "processed_at": now_ms,
        "step": 0,
        "due_at": due_at,
        "not_before": not_before,
        "next_try_at": due_at if due_at is None else max(due_at, not_before or 0),
        "held_since": None,
        "settled_by": None,
        "source": received.source,
        "last_error": found.error,
    }
    if found.intent is not None:
        _note_intent(entry, found)
    if wants_customer:
        entry["authentication"] = {"since": now_ms, "look_at": now_ms + FIRST_LOOK_MS}
    return entry


def settled_row(
    received: Received, called: Called, now_ms: int, known_fingerprint: str
) -> SettledRow:
    """The row of a first entry that is final, as the table holds it: `written(first_entry(...))` at once.

    For a verdict that leaves nothing to keep but this (`record_outcome.is_over`); a test compares the two.
    """
    event, found = received.payment, called.found
    return SettledRow(
        known_fingerprint, FINGERPRINT_VERSION, KEY_VERSION, event.action, event.product, found.status,
        found.reason, event.gateway, called.account, found.gateway_ref, event.amount_minor, event.currency,
        0, event.payment_method, event.business_ref, event.refund_of, called.calls, found.ambiguous,
        event.requested_at, received.appended_ms, now_ms, None, received.source, found.error,
        found.intent or UNSET, found.intent_charge or UNSET,
    )  # fmt: skip


def _note_intent(entry: PaymentEntry, found: Verdict) -> None:
    """The ids at the gateway of a payment by an intent."""
    if found.intent is not None:
        entry["intent"] = found.intent
    if found.intent_charge is not None:
        entry["intent_charge"] = found.intent_charge


def after_retry(
    entry: PaymentEntry, found: Verdict, *, calls: int, now_ms: int, by: SettledBy | None = None,
    patience_ms: int = PATIENCE_MS,
) -> PaymentEntry:  # fmt: skip
    """The entry of an open payment after `calls` more calls, or after a person settled it (`by`).

    Raises ValueError for a final one. A payment that is unknown after its last scheduled try is parked.
    """
    if entry["status"] not in OPEN:
        raise ValueError(f"a payment that is {entry['status']} never changes again")
    changed = entry.copy()
    changed["status"] = found.status
    changed["reason"] = found.reason
    changed["gateway_ref"] = found.gateway_ref if found.gateway_ref is not None else entry["gateway_ref"]
    changed["attempts"] = entry["attempts"] + calls
    changed["ever_ambiguous"] = entry["ever_ambiguous"] or found.ambiguous
    changed["ask_only"] = entry["ask_only"] or found.ask_only
    changed["soft"] = found.soft
    if found.absent:
        changed["absent_at"] = entry["absent_at"] or now_ms
    elif calls:  # from here on the gateway may have it
        changed["absent_at"] = None
    changed["window_from"] = found.window_from or entry["window_from"]
    changed["settled_by"] = by if by is not None else entry["settled_by"]
    changed["last_error"] = found.error
    changed["processed_at"] = now_ms
    _note_intent(changed, found)
    wants_customer = found.reason == AUTHENTICATION_REQUIRED or "authentication" in entry
    if found.status == "unknown" and wants_customer:
        _wait_for_customer(changed, found, now_ms, patience_ms)
    else:
        changed.pop("authentication", None)
        _plan_next_try(changed, found, now_ms)
    return changed


def _wait_for_customer(changed: PaymentEntry, found: Verdict, now_ms: int, patience_ms: int) -> None:
    """No schedule: it is looked at now and then, until it ends at the gateway."""
    changed["due_at"] = changed["not_before"] = changed["next_try_at"] = None
    before = changed.get("authentication")
    if before is None:
        changed["authentication"] = {"since": now_ms, "look_at": now_ms + FIRST_LOOK_MS}
        return
    end = authenticating_until(changed, patience_ms)
    pause_ms = LOOK_MS
    if found.waits:  # the gateway was not asked at all
        pause_ms = SCHEDULE_S[0] * 1000
    elif end is not None and end <= now_ms:  # it could not be canceled
        pause_ms = FIRST_LOOK_MS
    elif end is not None:
        pause_ms = min(LOOK_MS, end - now_ms)
    changed["authentication"] = {**before, "look_at": now_ms + pause_ms}


def authenticating_until(entry: PaymentEntry, patience_ms: int) -> int | None:
    """When an intent that waits for its customer is canceled; None: it waits for nobody."""
    waits = entry.get("authentication")
    if waits is None or entry["status"] != "unknown":
        return None
    end = waits["since"] + patience_ms
    return min(end, waits["until"]) if "until" in waits else end


def looked_at_by(entry: PaymentEntry, moment_ms: int) -> PaymentEntry:
    """The entry that is looked at no later than that, where its intent waits for its customer."""
    waits = entry.get("authentication")
    if waits is None or waits["look_at"] <= moment_ms:
        return entry
    changed = entry.copy()
    changed["authentication"] = {**waits, "look_at": moment_ms}
    return changed


def to_be_ended(entry: PaymentEntry, now_ms: int) -> PaymentEntry | None:
    """The entry of a payment that waits for its customer, its intent to be canceled now; None: any other."""
    waits = entry.get("authentication")
    if waits is None or entry["status"] != "unknown":
        return None
    changed = entry.copy()
    until = min(now_ms, waits["until"]) if "until" in waits else now_ms
    changed["authentication"] = {"since": waits["since"], "look_at": now_ms, "until": until}
    return changed


def _plan_next_try(changed: PaymentEntry, found: Verdict, now_ms: int) -> None:
    """Set when an unknown payment is tried again; park it once its schedule is used up.

    A try before its time (a re-sent event asked for it) or one that called nobody uses up no step.
    """
    due_at = changed["due_at"]
    early = due_at is not None and now_ms < due_at
    if changed["status"] == "unknown" and not early:
        step = changed["step"] if found.waits else changed["step"] + 1
        if found.under_way:  # nobody could do anything about it
            step = min(step, len(SCHEDULE_S) - 1)
        if step >= len(SCHEDULE_S):
            changed["status"], changed["reason"] = "parked", "tries_used_up"
        else:
            changed["step"] = step
            pause_s = SCHEDULE_S[0] if found.waits else SCHEDULE_S[step]
            due_at = now_ms + pause_s * 1000
    if changed["status"] != "unknown":
        changed["due_at"] = changed["not_before"] = changed["next_try_at"] = None
        return
    wish = _wish(found.retry_after_s, now_ms)
    changed["due_at"], changed["not_before"] = due_at, wish
    next_at = due_at or now_ms
    if found.again_after_s is not None:
        next_at = now_ms + round(found.again_after_s * 1000)
    changed["next_try_at"] = max(next_at, wish or 0)


def _wish(retry_after_s: float | None, now_ms: int) -> int | None:
    """The moment before which the gateway wants no call."""
    return None if retry_after_s is None else now_ms + round(min(retry_after_s, LONGEST_WISH_S) * 1000)
