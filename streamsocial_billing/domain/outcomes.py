"""What a gateway's answer means for a payment."""

from __future__ import annotations

from msgspec import Struct
from msgspec.structs import replace

from streamsocial_billing.domain.gateway_calls import (
    AUTHENTICATION_REQUIRED,
    NOT_CALLED,
    PENDING,
    UNCAPTURED,
    Absent,
    Ambiguous,
    Answer,
    Declined,
    Found,
    HasAccount,
    Invalid,
    KeyMismatch,
    NotSent,
    Outcome,
    Query,
    Succeeded,
    Waiting,
)
from streamsocial_billing.domain.payment_identity import gateway_key_of
from tables.payments import PaymentEntry


class Verdict(Struct, frozen=True, gc=False):
    """A status with its reason.

    ambiguous      a call may have been executed unseen
    error          text for people
    retry_after_s  the gateway's own wish, seconds
    ask_only       repeating brings the same answer again: ask by our reference
    waits          the gateway was not called at all (breaker open, stopped)
    absent         the gateway said that it has nothing under our reference
    again_after_s  when that makes sense to be asked again, seconds
    soft           a decline that another payment may not meet
    conflicts_with duplicate_business_ref: payment_id of the charge that holds it
    window_from    ms since the epoch: a call after proven absence started a new window of the gateway's key
    intent         the gateway's id of the payment's intent; intent_charge that of the intent's charge
    under_way      the gateway has the intent, and is at work: no schedule parks it
    stored         `failed` as the gateway keeps it under our key: so it was from the first call on
    """

    status: str
    reason: str | None
    gateway_ref: str | None = None
    ambiguous: bool = False
    error: str | None = None
    retry_after_s: float | None = None
    ask_only: bool = False
    waits: bool = False
    absent: bool = False
    again_after_s: float | None = None
    soft: bool = False
    conflicts_with: str | None = None
    window_from: int | None = None
    intent: str | None = None
    intent_charge: str | None = None
    under_way: bool = False
    stored: bool = False


class Called(Struct, frozen=True, gc=False):
    """What came of a payment's call; where nobody was called, what is known of it without that.

    account     at the gateway, which was called or is to be called; empty: it is not known
    calls       that were made, repeats with them
    gateway_ms  milliseconds spent inside them, None where there was none
    forbidden   nobody was called, as the gateway has another account, or does not know its own yet
    """

    found: Verdict
    account: str = ""
    calls: int = 0
    gateway_ms: int | None = None
    forbidden: bool = False

    def in_doubt(self, doubt: bool) -> Called:
        """The same where an earlier delivery may have called, too, though nothing of that is stored."""
        if not doubt or self.found.ambiguous:
            return self
        return replace(self, found=replace(self.found, ambiguous=True))


def verdict(outcome: Outcome) -> Verdict:
    """Map an outcome to a status (payments.md, "Outcomes"): all else than proven-unsent is `unknown`."""
    match outcome:
        case Succeeded():
            if outcome.intent is None:
                return Verdict("succeeded", None, outcome.gateway_ref)
            return Verdict(
                "succeeded", None, outcome.gateway_ref, intent=outcome.intent,
                intent_charge=outcome.intent_charge,
            )  # fmt: skip
        case Declined(reason, gateway_ref, soft, intent, charge):
            return Verdict("declined", reason, gateway_ref, soft=soft, intent=intent, intent_charge=charge)
        case Waiting(reason, intent, charge):
            return undecided(reason, intent, charge)
        case Invalid(reason, stored):
            return Verdict("failed", "invalid_request", error=reason, stored=stored)
        case KeyMismatch(reason):
            return Verdict("parked", "key_mismatch_at_gateway", ambiguous=True, error=reason)
        case NotSent(reason, retry_after_s):
            return Verdict(
                "unknown", "gateway_unavailable", error=reason, retry_after_s=retry_after_s,
                waits=reason in NOT_CALLED,
            )  # fmt: skip
        case Ambiguous(reason, ask_only):
            return Verdict("unknown", "outcome_unknown", ambiguous=True, error=reason, ask_only=ask_only)


def undecided(reason: str | None, intent: str, charge: str | None) -> Verdict:
    """What a payment is while its intent is not decided; only asking helps, and its failure is no end."""
    if reason == UNCAPTURED:
        error = f"{intent} is only reserved, to be captured: no call of ours does that"
        return Verdict("parked", "found_disagrees", ambiguous=True, error=error, intent=intent)
    wants_customer = reason == AUTHENTICATION_REQUIRED
    return Verdict(
        "unknown", AUTHENTICATION_REQUIRED if wants_customer else PENDING, intent, ambiguous=True,
        ask_only=True, intent=intent, intent_charge=charge, under_way=True,
    )  # fmt: skip


def question(user_id: str, payment_id: str, entry: PaymentEntry) -> Query:
    """Asks what the gateway has of a payment under our reference."""
    action = entry["action"]
    return Query(
        idempotency_key=gateway_key_of(user_id, action, payment_id), action=action, user_id=user_id,
        payment_id=payment_id, amount_minor=entry["amount_minor"], currency=entry["currency"],
        since_ms=entry["first_seen_at"], charge_ref=entry["charge_ref"],
        payment_method=entry["payment_method"], intent=entry.get("intent"),
    )  # fmt: skip


def verdict_of_answer(answer: Answer, query: Query, before: str | None, *, waits: bool = False) -> Verdict:
    """Map what `find` or `cancel` said to a status; `before` is the payment's reason, kept by no news.

    Only an answer that agrees on user, amount, currency counts (payments.md): another one is for a person.
    `waits`: for its customer, who may try again what was declined, so only a cancellation is an end.
    """
    match answer:
        case Found() if answer.agrees(query):
            return _found(answer, waits=waits)
        case Found(gateway_ref):
            error = f"under our reference the gateway has {gateway_ref}, with other user, amount or currency"
            return Verdict("parked", "found_disagrees", ambiguous=True, error=error)
        case Absent() if query.intent is not None:
            error = f"the gateway has no {query.intent}, which it had made under our reference"
            return Verdict("parked", "found_disagrees", ambiguous=True, error=error)
        case Absent():
            return Verdict("unknown", before, absent=True)
        case NotSent(reason, retry_after_s):
            away = reason in NOT_CALLED
            return Verdict("unknown", before, error=reason, retry_after_s=retry_after_s, waits=away)
        case Ambiguous(reason):  # only the question was lost
            return Verdict("unknown", before, error=reason)


def _found(answer: Found, *, waits: bool) -> Verdict:
    """The status of what the gateway has, where it is the payment's own."""
    status, ref, intent, charge = answer.status, answer.gateway_ref, answer.intent, answer.intent_charge
    if status == "succeeded":
        return Verdict("succeeded", None, ref, intent=intent, intent_charge=charge)
    if status == "declined" and waits and not answer.canceled:
        return undecided(AUTHENTICATION_REQUIRED, ref, charge)
    if status == "declined":
        return declined(
            answer.reason, ref, soft=answer.soft, canceled=waits, intent=intent, intent_charge=charge
        )
    if intent is None:
        return Verdict("unknown", PENDING, ref, ambiguous=True)
    return undecided(UNCAPTURED if status == "uncaptured" else answer.reason, intent, charge)


def declined(
    reason: str | None, gateway_ref: str, *, soft: bool, canceled: bool, intent: str | None = None,
    intent_charge: str | None = None,
) -> Verdict:  # fmt: skip
    """A decline; `canceled`: of an intent that had waited for its customer, which is why it was declined."""
    if canceled:
        reason, soft = AUTHENTICATION_REQUIRED, True
    return Verdict(
        "declined", reason or "declined", gateway_ref, soft=soft, intent=intent, intent_charge=intent_charge
    )  # fmt: skip


def account_forbids(gateway: HasAccount, account: str) -> Verdict | None:
    """What a payment of this account is while the gateway, started, has another one; None: it may be called.

    An empty `account` was never known, so nobody was called: any will do.
    """
    if account in ("", gateway.account):
        return None
    if not gateway.account:
        return Verdict("unknown", "gateway_unavailable", error="its account is not known yet", waits=True)
    error = f"its account is {account}, the gateway now has {gateway.account}"
    return Verdict("unknown", "gateway_account_changed", error=error)


INTERNAL_ERROR = Verdict("unknown", "internal_error", ambiguous=True, error="internal_error")
"""After a call has started no exception ends in a dead letter (payments.md)."""
TOO_OLD_TO_CALL = Verdict("unknown", "key_window_passed", ambiguous=True)
"""No call: an earlier delivery may have made one under a key that the gateway has forgotten since."""
