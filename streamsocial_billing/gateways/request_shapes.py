"""The shapes of a request: what we send may change, calls of an older release stay under the same key.

A gateway that knows a key with other parameters refuses them (Stripe: `idempotency_error`; PayPal:
`DUPLICATE_REQUEST_ID`). The first call may have been made by an older release just before it was killed, with
nothing stored of it: then the older shape, under the same key, gets the answer to that very call.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

from streamsocial_billing.domain.gateway_calls import Ambiguous, Invalid, KeyMismatch, NotSent, Outcome

Shape = TypeVar("Shape")
Reply = TypeVar("Reply")


async def newest_first(
    shapes: Sequence[Shape], call: Callable[[Shape], Awaitable[tuple[Outcome, Reply]]]
) -> tuple[Outcome, Reply]:
    """Call with the newest shape; only if its key is known with other parameters, once with each older one.

    `shapes` are those that differ for this request, the newest first; nearly always there is one. What comes
    back is KeyMismatch if none fits.
    """
    outcome, reply = await call(shapes[0])
    for older in shapes[1:]:
        if not isinstance(outcome, KeyMismatch):
            break
        outcome, reply = await call(older)
        outcome = _of_a_known_key(outcome)
    return outcome, reply


def _of_a_known_key(outcome: Outcome) -> Outcome:
    """The gateway knows the key, so something was called: that this try was not sent proves nothing.

    That it is invalid does so only where the gateway keeps that under the key: it answers that very call.
    """
    if isinstance(outcome, NotSent):
        return Ambiguous(f"older_shape_{outcome.reason}")
    if isinstance(outcome, Invalid) and not outcome.stored:
        return KeyMismatch(outcome.reason)
    return outcome
