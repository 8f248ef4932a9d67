"""What is said to a payment gateway, and what it answers: records without behaviour.

A call ends in one of seven outcomes and never in an exception: a decline is a value, doubt is a type of
its own. Source of the classes: the table "Outcomes" of docs/payments.md.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar, Protocol

from msgspec import Struct

NOT_CALLED = frozenset({"breaker_open", "stopped", "account_changed"})
"""Reasons of NotSent under which the gateway was not called at all: no try, and none to repeat at once."""

AUTHENTICATION_REQUIRED = "authentication_required"
PENDING = "pending_at_gateway"
UNCAPTURED = "requires_capture"
"""Why an intent is not decided."""
CANCELED = "canceled"
"""Why an intent that nobody can confirm any more was declined."""


class ChargeRequest(Struct, frozen=True, gc=False):
    """One charge; the same event always makes an equal request.

    `idempotency_key` travels as `metadata.ref` too. `amount_minor` is in minor units of `currency`
    (ISO 4217); `product` as the event has it.
    """

    action: ClassVar[str] = "charge"
    idempotency_key: str
    user_id: str
    payment_id: str
    fingerprint: str
    amount_minor: int
    currency: str
    payment_method: str
    product: str = ""


class RefundRequest(Struct, frozen=True, gc=False):
    """One refund of (a part of) a charge; the same event always makes an equal request.

    `charge_ref` is the gateway's id of the charge; amounts in minor units of `currency` (ISO 4217).
    """

    action: ClassVar[str] = "refund"
    idempotency_key: str
    user_id: str
    payment_id: str
    fingerprint: str
    amount_minor: int
    currency: str
    charge_ref: str


class Query(Struct, frozen=True, gc=False):
    """Asks what the gateway knows under our reference; only an answer that agrees with the rest counts.

    `idempotency_key` is our reference, `action` charge or refund, `charge_ref` the gateway's id of the
    refunded charge (refunds only), `since_ms` the append time of the payment's first event, `until_ms` when
    its last call was surely over: nothing later need be read (None: it may be called at this moment).
    `payment_method` is what was charged, where that is known; `intent` the gateway's id of the payment's
    intent: then that one is asked for, nothing else.
    """

    idempotency_key: str
    action: str
    user_id: str
    payment_id: str
    amount_minor: int
    currency: str
    since_ms: int
    charge_ref: str | None = None
    until_ms: int | None = None
    payment_method: str | None = None
    intent: str | None = None


class Found(Struct, frozen=True, gc=False):
    """The gateway has it under our reference.

    `status` is `succeeded`, `declined` or `pending`; user, amount and currency are the gateway's own words,
    which the caller compares (`agrees`). Of an intent, `intent` is its id, as is `gateway_ref`, and
    `intent_charge` its last charge's; `pending` with the reason AUTHENTICATION_REQUIRED waits for its
    customer; `canceled`: declined for good, while another decline may be followed by a success;
    `uncaptured` (a status) is none of ours.
    """

    gateway_ref: str
    status: str
    reason: str | None
    amount_minor: int
    currency: str
    user_id: str | None
    payment_id: str | None = None
    soft: bool = False
    intent: str | None = None
    intent_charge: str | None = None
    canceled: bool = False

    def agrees(self, query: Query) -> bool:
        """True if this can be the payment that was asked for (payments.md: user, amount, currency)."""
        asked = query.user_id, query.amount_minor, query.currency.upper()
        return (self.user_id, self.amount_minor, self.currency.upper()) == asked


class Cancellation(Struct, frozen=True, gc=False):
    """Ends an intent that is not decided; `query` names it, and is what an answer must agree with."""

    query: Query

    @property
    def idempotency_key(self) -> str:
        """Our reference: whose call it is. The cancellation itself needs no key: the status decides."""
        return self.query.idempotency_key


class Absent(Struct, frozen=True, gc=False):
    """The gateway answered, and has nothing under our reference at this moment."""


@dataclass(frozen=True, slots=True)
class Movement:
    """One row of the gateway's own list; minor units, ms since the epoch.

    `kind` is `charge`, `refund` or `dispute`, `status` `succeeded` (money moved), `failed` or `pending`;
    `dispute_won` gives back a dispute that has an id of its own (`charge_ref`: that id, or the charge's).
    `unreadable`: a row without our reference that makes no sense here, whatever of it could be read.
    `ref`, `payment_id`, `user_id` are our metadata, None on what is not ours; `charge_ref` is set on refunds
    and disputes; `fee_minor` where the gateway's list tells it in the same currency; `returned_minor` is what
    came back of `amount_minor` (gateways/moved.py). A charge made by an intent has the intent's id as
    `gateway_ref` (refunds and disputes of it as `charge_ref`), its own in `intent_charge`.
    """

    gateway_ref: str
    kind: str
    status: str
    amount_minor: int
    currency: str
    created_ms: int
    ref: str | None = None
    payment_id: str | None = None
    user_id: str | None = None
    charge_ref: str | None = None
    fee_minor: int | None = None
    returned_minor: int = 0
    intent_charge: str | None = None


@dataclass(frozen=True, slots=True)
class Owner:
    """Whose a gateway's object is, by the words that our call gave it; `ref` is our idempotency key."""

    user_id: str
    payment_id: str
    ref: str


class HasAccount(Protocol):
    """Whoever charges at an account of a gateway."""

    @property
    def account(self) -> str:
        """Empty until it is known."""


@dataclass(frozen=True, slots=True)
class Traits:
    """What differs between gateways beyond their wire formats; seconds.

    key_safe_window_s   3/4 of how long the gateway remembers an idempotency key
    consistency_delay_s how long a charge may stay out of `find` after it happened
    min_minor, max_minor  smallest, largest amount per currency, in minor units; a missing one: no bound
    list_reach_s        how far back its list goes; None: to the beginning
    """

    key_safe_window_s: float
    consistency_delay_s: float
    min_minor: dict[str, int] = field(default_factory=dict)
    max_minor: dict[str, int] = field(default_factory=dict)
    list_reach_s: float | None = None

    def past_window(self, window_from: int, now_ms: int) -> bool:
        """True if the gateway may have forgotten our key since: only asking by reference is safe."""
        return now_ms - window_from > self.key_safe_window_s * 1000


class Succeeded(Struct, frozen=True, gc=False):
    """The gateway holds the money (charge) or gave it back (refund); `gateway_ref` is its id of that.

    Of a charge by an intent that is the intent's id, `intent`, too; `intent_charge` is its charge's.
    """

    repeatable: ClassVar[bool] = False
    gateway_ref: str
    intent: str | None = None
    intent_charge: str | None = None


class Declined(Struct, frozen=True, gc=False):
    """The gateway refused for good, for the given reason code; nothing moved. `soft`: worth a new payment."""

    repeatable: ClassVar[bool] = False
    reason: str
    gateway_ref: str | None = None
    soft: bool = False
    intent: str | None = None
    intent_charge: str | None = None


class Waiting(Struct, frozen=True, gc=False):
    """The gateway has made an intent that is not decided; from now on it is asked for, never called again.

    `reason` is AUTHENTICATION_REQUIRED (it waits for its customer), PENDING (the gateway is at work), or
    UNCAPTURED (the money is only reserved: none of ours).
    """

    repeatable: ClassVar[bool] = False
    reason: str
    intent: str
    intent_charge: str | None = None


class Invalid(Struct, frozen=True, gc=False):
    """The gateway could not accept a request of our making; nothing was charged, no repeat helps.

    `stored`: it is what the gateway keeps under the key, so the answer to the very first call.
    """

    repeatable: ClassVar[bool] = False
    reason: str
    stored: bool = False


class KeyMismatch(Struct, frozen=True, gc=False):
    """The gateway knows the key with other parameters; a person has to look."""

    repeatable: ClassVar[bool] = False
    reason: str


class NotSent(Struct, frozen=True, gc=False):
    """Proven not executed; `retry_after_s` is the gateway's own wish in seconds, if it has one."""

    repeatable: ClassVar[bool] = True
    reason: str
    retry_after_s: float | None = None


class Ambiguous(Struct, frozen=True, gc=False):
    """Executed or not: the reply does not tell. A repeat with the same key settles it.

    `ask_only`: the reply is stored under the key (a 5xx with the replay mark), so a repeat only brings it
    again; `find` has to settle it.
    """

    repeatable: ClassVar[bool] = True
    reason: str
    ask_only: bool = False


Answer = Found | Absent | NotSent | Ambiguous
Outcome = Succeeded | Declined | Waiting | Invalid | KeyMismatch | NotSent | Ambiguous
