"""What the rest of the app knows of a payment gateway.

A call ends in one of six outcomes and never in an exception: a decline is a value, doubt is a type of
its own. Source of the classes: the table "Outcomes" of the payments design.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import ClassVar, Protocol

MIN_TRY_S = 0.05
"""A try that would have less time than this is not begun: it could only turn "unsent" into doubt."""

FIRST_PAUSE_S = 0.05
LONGEST_PAUSE_S = 1.0


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
class Succeeded:
    """The gateway holds the money; `gateway_ref` is its id of the charge."""

    repeatable: ClassVar[bool] = False
    gateway_ref: str


@dataclass(frozen=True, slots=True)
class Declined:
    """The gateway refused for good, for the given reason code; nothing was charged."""

    repeatable: ClassVar[bool] = False
    reason: str
    gateway_ref: str | None = None


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
    """Charged or not: the reply does not tell. Only a repeat with the same key settles it."""

    repeatable: ClassVar[bool] = True
    reason: str


Outcome = Succeeded | Declined | Invalid | KeyMismatch | NotSent | Ambiguous


class Gateway(Protocol):
    """A payment gateway: `start` it, `charge` as often as wanted, `close` it."""

    @property
    def name(self) -> str:
        """The value of an event's `gateway` field that leads here."""

    @property
    def account(self) -> str:
        """The account that is charged at; a payment stays with the account of its first call."""

    async def start(self) -> None:
        """Make ready for calls, on the running loop; starting twice is allowed."""

    async def close(self) -> None:
        """Give every connection back; closing twice is allowed."""

    async def charge(self, request: ChargeRequest, *, timeout_s: float) -> Outcome:
        """Make one call with the request's key, over in `timeout_s` seconds, parsing included.

        Raises nothing but CancelledError.
        """


async def charge_until(
    gateway: Gateway,
    request: ChargeRequest,
    *,
    deadline_s: float,
    clock: Callable[[], float],
    sleep: Callable[[float], Awaitable[object]],
) -> tuple[Outcome, int, int]:
    """Repeat a charge under the same key until it is settled or `deadline_s` seconds have passed.

    The deadline covers all tries, waits and parsing; a wait that would not leave time for a try is not
    begun. `clock` gives seconds and never runs backwards. Returns the outcome, the calls made and the
    milliseconds spent inside them. Without time for one call: NotSent("deadline") after 0 calls.
    """
    ends = clock() + deadline_s
    outcome: Outcome = NotSent("deadline")
    doubt: Ambiguous | None = None
    attempts, in_calls_s = 0, 0.0
    while (left_s := ends - clock()) >= MIN_TRY_S:
        called_at = clock()
        outcome = await gateway.charge(request, timeout_s=_try_timeout_s(left_s))
        in_calls_s += clock() - called_at
        attempts += 1
        if isinstance(outcome, Ambiguous):
            doubt = outcome
        if not outcome.repeatable:
            break
        pause_s = _pause_s(attempts, outcome)
        if ends - clock() - pause_s < MIN_TRY_S:
            break
        await sleep(pause_s)
    return _in_doubt_of(outcome, doubt), attempts, round(in_calls_s * 1000)


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
