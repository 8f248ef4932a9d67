"""What the rest of the app knows of a payment gateway.

A call ends in one of six outcomes and never in an exception: a decline is a value, doubt is a type of
its own. Source of the classes: the table "Outcomes" of the payments design.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from typing import ClassVar, Protocol

MIN_TRY_S = 0.05
"""A try that would have less time than this is not begun: it could only turn "unsent" into doubt."""

FIRST_PAUSE_S = 0.05
LONGEST_PAUSE_S = 1.0

NOT_CALLED = frozenset({"breaker_open", "stopped", "account_changed"})
"""Reasons of NotSent under which the gateway was not called at all: no try, and none to repeat at once."""


@dataclass(frozen=True, slots=True)
class ChargeRequest:
    """One charge; the same event always makes an equal request.

    `idempotency_key` travels as `metadata.ref` too. `amount_minor` is in minor units of `currency`
    (ISO 4217).
    """

    idempotency_key: str
    user_id: str
    payment_id: str
    fingerprint: str
    amount_minor: int
    currency: str
    payment_method: str


@dataclass(frozen=True, slots=True)
class RefundRequest:
    """One refund of (a part of) a charge; the same event always makes an equal request.

    `charge_ref` is the gateway's id of the charge; amounts in minor units of `currency` (ISO 4217).
    """

    idempotency_key: str
    user_id: str
    payment_id: str
    fingerprint: str
    amount_minor: int
    currency: str
    charge_ref: str


@dataclass(frozen=True, slots=True)
class Query:
    """Asks what the gateway knows under our reference; only an answer that agrees with the rest counts.

    `idempotency_key` is our reference, `action` charge or refund, `charge_ref` the gateway's id of the
    refunded charge (refunds only), `since_ms` the append time of the payment's first event, `until_ms` when
    its last call was surely over: nothing later need be read (None: it may be called at this moment).
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


@dataclass(frozen=True, slots=True)
class Found:
    """The gateway has it under our reference.

    `status` is `succeeded`, `declined` or `pending`; user, amount and currency are the gateway's own words,
    which the caller compares (`agrees`).
    """

    gateway_ref: str
    status: str
    reason: str | None
    amount_minor: int
    currency: str
    user_id: str | None
    payment_id: str | None = None
    soft: bool = False

    def agrees(self, query: Query) -> bool:
        """True if this can be the payment that was asked for (payments.md: user, amount, currency)."""
        asked = query.user_id, query.amount_minor, query.currency.upper()
        return (self.user_id, self.amount_minor, self.currency.upper()) == asked


@dataclass(frozen=True, slots=True)
class Absent:
    """The gateway answered, and has nothing under our reference at this moment."""


@dataclass(frozen=True, slots=True)
class Movement:
    """One row of the gateway's own list; minor units, ms since the epoch.

    `kind` is `charge`, `refund` or `dispute`, `status` `succeeded` (money moved), `failed` or `pending`;
    `dispute_won` gives back a dispute that has an id of its own (`charge_ref`: that id, or the charge's).
    `unreadable`: a row without our reference that makes no sense here, whatever of it could be read.
    `ref`, `payment_id`, `user_id` are our metadata, None on what is not ours; `charge_ref` is set on refunds
    and disputes; `fee_minor` where the gateway's list tells it in the same currency; `returned_minor` is what
    came back of `amount_minor` (gateways/moved.py).
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


@dataclass(frozen=True, slots=True)
class Owner:
    """Whose a gateway's object is, by the words that our call gave it; `ref` is our idempotency key."""

    user_id: str
    payment_id: str
    ref: str


MAX_LISTED_MINOR = 10**15
"""The largest amount that a list is believed to have; more is no reading of ours."""


def unreadable(
    gateway_ref: object, kind: str, currency: object, created_ms: int, charge_ref: object = None
) -> Movement:
    """A row of others that makes no sense: it is counted, and stops nothing."""
    charge = charge_ref if isinstance(charge_ref, str) else None
    return Movement(
        _writable(str(gateway_ref)[:255]), kind, "unreadable", 0, _writable(str(currency).upper()[:20]),
        created_ms, charge_ref=None if charge is None else _writable(charge),
    )  # fmt: skip


def _writable(text: str) -> str:
    """Without what has no place in UTF-8 (JSON may hold half a surrogate pair)."""
    return text.encode("utf-8", "replace").decode()


def check_writable(*texts: str | None) -> None:
    """Raise ValueError for half a surrogate pair: JSON may hold one, nobody can write it."""
    if not "".join(text or "" for text in texts).isascii():
        for text in texts:
            (text or "").encode()


class ListFailed(Exception):
    """Raised when a gateway's list could not be read to its end; the text says what to do."""


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


@dataclass(frozen=True, slots=True)
class Succeeded:
    """The gateway holds the money (charge) or gave it back (refund); `gateway_ref` is its id of that."""

    repeatable: ClassVar[bool] = False
    gateway_ref: str


@dataclass(frozen=True, slots=True)
class Declined:
    """The gateway refused for good, for the given reason code; nothing moved. `soft`: worth a new payment."""

    repeatable: ClassVar[bool] = False
    reason: str
    gateway_ref: str | None = None
    soft: bool = False


@dataclass(frozen=True, slots=True)
class Invalid:
    """The gateway could not accept a request of our making; nothing was charged, no repeat helps."""

    repeatable: ClassVar[bool] = False
    reason: str


@dataclass(frozen=True, slots=True)
class KeyMismatch:
    """The gateway knows the key with other parameters; a person has to look."""

    repeatable: ClassVar[bool] = False
    reason: str


@dataclass(frozen=True, slots=True)
class NotSent:
    """Proven not executed; `retry_after_s` is the gateway's own wish in seconds, if it has one."""

    repeatable: ClassVar[bool] = True
    reason: str
    retry_after_s: float | None = None


@dataclass(frozen=True, slots=True)
class Ambiguous:
    """Executed or not: the reply does not tell. A repeat with the same key settles it.

    `ask_only`: the reply is stored under the key (a 5xx with the replay mark), so a repeat only brings it
    again; `find` has to settle it.
    """

    repeatable: ClassVar[bool] = True
    reason: str
    ask_only: bool = False


Answer = Found | Absent | NotSent | Ambiguous
Outcome = Succeeded | Declined | Invalid | KeyMismatch | NotSent | Ambiguous


class Gateway(Protocol):
    """A payment gateway: `start` it, `charge` as often as wanted, `close` it."""

    @property
    def name(self) -> str:
        """The value of an event's `gateway` field that leads here."""

    @property
    def account(self) -> str:
        """The account that is charged at; a payment stays with the account of its first call."""

    @property
    def traits(self) -> Traits:
        """Windows, delays, limits of this gateway."""

    async def start(self) -> None:
        """Make ready for calls, on the running loop; starting twice is allowed."""

    async def close(self) -> None:
        """Give every connection back; closing twice is allowed."""

    async def charge(self, request: ChargeRequest, *, timeout_s: float) -> Outcome:
        """Make one call with the request's key, over in `timeout_s` seconds, parsing included.

        Raises nothing but CancelledError.
        """

    async def refund(self, request: RefundRequest, *, timeout_s: float) -> Outcome:
        """Like `charge`, the other way."""

    async def find(self, query: Query, *, timeout_s: float) -> Answer:
        """Ask by our reference; over in `timeout_s` seconds, raises nothing but CancelledError."""

    def movements(self, since_ms: int, until_ms: int) -> AsyncIterator[Movement]:
        """Every movement made in [since_ms, until_ms), paged to the end, each once; raises ListFailed."""


async def call_until(
    call: Callable[[float], Awaitable[Outcome]],
    *,
    deadline_s: float,
    clock: Callable[[], float],
    sleep: Callable[[float], Awaitable[object]],
) -> tuple[Outcome, int, int]:
    """Repeat a charge or refund under the same key until it is settled or `deadline_s` seconds have passed.

    `call(timeout_s)` makes one try. The deadline covers all tries, waits and parsing; a wait that would not
    leave time for a try is not begun. `clock` gives seconds and never runs backwards. Returns the outcome,
    the calls made and the milliseconds spent inside them. Without time for one call: NotSent("deadline")
    after 0 calls.
    """
    ends = clock() + deadline_s
    outcome: Outcome = NotSent("deadline")
    doubt: Ambiguous | None = None
    attempts, in_calls_s = 0, 0.0
    while (left_s := ends - clock()) >= MIN_TRY_S:
        called_at = clock()
        outcome = await call(_try_timeout_s(left_s))
        in_calls_s += clock() - called_at
        if isinstance(outcome, NotSent) and outcome.reason in NOT_CALLED:
            break  # a handler that waited here for the breaker would hold its place for nothing
        attempts += 1
        if isinstance(outcome, Ambiguous):
            doubt = outcome
        if not outcome.repeatable or (isinstance(outcome, Ambiguous) and outcome.ask_only):
            break
        pause_s = _pause_s(attempts, outcome)
        if ends - clock() - pause_s < MIN_TRY_S:
            break
        await sleep(pause_s)
    return _in_doubt_of(outcome, doubt), attempts, round(in_calls_s * 1000)


async def charge_until(
    gateway: Gateway,
    request: ChargeRequest,
    *,
    deadline_s: float,
    clock: Callable[[], float],
    sleep: Callable[[float], Awaitable[object]],
) -> tuple[Outcome, int, int]:
    """`call_until` of one charge."""

    def call(timeout_s: float) -> Awaitable[Outcome]:
        return gateway.charge(request, timeout_s=timeout_s)

    return await call_until(call, deadline_s=deadline_s, clock=clock, sleep=sleep)


def _try_timeout_s(left_s: float) -> float:
    """Half of what is left, at least a second: one hung connection must leave time for a repeat."""
    return min(left_s, max(left_s / 2, 1.0))


def _pause_s(attempts: int, outcome: Outcome) -> float:
    """50 ms, doubled after each try up to 1 s; longer where the gateway asked for it."""
    growing_s: float = min(FIRST_PAUSE_S * 2 ** min(attempts - 1, 10), LONGEST_PAUSE_S)
    wished_s = outcome.retry_after_s if isinstance(outcome, NotSent) else None
    return max(growing_s, wished_s or 0.0)


def _in_doubt_of(outcome: Outcome, doubt: Ambiguous | None) -> Outcome:
    """An earlier ambiguous try is not outweighed by a later one that proves only its own harmlessness.

    Success, decline and mismatch are the gateway's word on the key; "unsent" and "invalid" speak of one
    call alone.
    """
    if doubt is not None and isinstance(outcome, NotSent | Invalid):
        return doubt
    return outcome
