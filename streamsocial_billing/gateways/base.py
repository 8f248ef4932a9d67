"""What the rest of the app knows of a payment gateway: how it is called, until when a call is repeated."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Protocol, runtime_checkable

from streamsocial_billing.domain.gateway_calls import (
    NOT_CALLED,
    Ambiguous,
    Answer,
    Cancellation,
    ChargeRequest,
    Invalid,
    Movement,
    NotSent,
    Outcome,
    Query,
    RefundRequest,
    Traits,
)

MIN_TRY_S = 0.05
"""A try that would have less time than this is not begun: it could only turn "unsent" into doubt."""

FIRST_PAUSE_S = 0.05
LONGEST_PAUSE_S = 1.0

MAX_LISTED_MINOR = 10**15
"""The largest amount that a list is believed to have; more is no reading of ours."""


def unreadable(
    gateway_ref: object, kind: str, currency: object, created_ms: int, charge_ref: object = None
) -> Movement:
    """A row of others that makes no sense: it is counted, and stops nothing."""
    charge = charge_ref if isinstance(charge_ref, str) else None
    return Movement(
        gateway_ref=_writable(str(gateway_ref)[:255]), kind=kind, status="unreadable", amount_minor=0,
        currency=_writable(str(currency).upper()[:20]), created_ms=created_ms,
        charge_ref=None if charge is None else _writable(charge[:255]),
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


@runtime_checkable
class Cancels(Protocol):
    """A gateway with intents: one that is not decided can be ended."""

    async def cancel(self, request: Cancellation, *, timeout_s: float) -> Answer:
        """What the intent is after it was asked to be canceled: succeeded, too, if that came first.

        Found(canceled=True) only where the gateway says so; raises nothing but CancelledError.
        """


async def call_until(
    call: Callable[..., Awaitable[Outcome]],
    request: ChargeRequest | RefundRequest,
    *,
    deadline_s: float,
    clock: Callable[[], float],
    sleep: Callable[[float], Awaitable[object]],
) -> tuple[Outcome, int, int]:
    """Repeat a charge or refund under the same key until it is settled or `deadline_s` seconds have passed.

    `call(request, timeout_s=...)` makes one try: a gateway's `charge` or `refund`. The deadline covers all
    tries, waits and parsing; a wait that would not leave time for a try is not begun. `clock` gives seconds
    and never runs backwards. Returns the outcome, the calls made and the milliseconds spent inside them.
    Without time for one call: NotSent("deadline") after 0 calls.
    """
    outcome: Outcome = NotSent("deadline")
    doubt: Ambiguous | None = None
    attempts, in_calls_s, left_s, began = 0, 0.0, deadline_s, clock()
    ends = began + deadline_s
    while left_s >= MIN_TRY_S:
        # half of what is left, at least a second: one hung connection must leave time for a repeat
        one_s = left_s / 2 if left_s >= 2.0 else min(left_s, 1.0)
        outcome = await call(request, timeout_s=one_s)
        now = clock()
        in_calls_s += now - began
        if not outcome.repeatable:  # nearly always
            attempts += 1
            break
        if isinstance(outcome, NotSent) and outcome.reason in NOT_CALLED:
            break  # a handler that waited here for the breaker would hold its place for nothing
        attempts += 1
        if isinstance(outcome, Ambiguous):
            doubt = outcome
            if outcome.ask_only:
                break
        pause_s = _pause_s(attempts, outcome)
        if ends - now - pause_s < MIN_TRY_S:
            break
        await sleep(pause_s)
        began = clock()
        left_s = ends - began
    said = outcome if doubt is None else _in_doubt_of(outcome, doubt)
    return said, attempts, round(in_calls_s * 1000)


def _pause_s(attempts: int, outcome: Outcome) -> float:
    """50 ms, doubled after each try up to 1 s; longer where the gateway asked for it."""
    growing_s: float = min(FIRST_PAUSE_S * 2 ** min(attempts - 1, 10), LONGEST_PAUSE_S)
    wished_s = outcome.retry_after_s if isinstance(outcome, NotSent) else None
    return max(growing_s, wished_s or 0.0)


def _in_doubt_of(outcome: Outcome, doubt: Ambiguous) -> Outcome:
    """An earlier ambiguous try is not outweighed by a later one that proves only its own harmlessness.

    Success, decline and mismatch are the gateway's word on the key; "unsent" and "invalid" speak of one
    call alone.
    """
    return doubt if isinstance(outcome, NotSent | Invalid) else outcome
