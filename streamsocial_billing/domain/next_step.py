"""What to do next about an open payment that is due.

Pure: no await, no I/O, no clock; nothing that comes in is changed. Inside the window of its key the same call
is the authority; past it, or where the gateway keeps an error under our key, only a question by our reference
is safe; after absence that is proven one call more is allowed (payments.md, "Open payments").
"""

from __future__ import annotations

from typing import NamedTuple

from msgspec.structs import replace

from streamsocial_billing.domain.decision import gives_up, proven_absent
from streamsocial_billing.domain.gateway_calls import AUTHENTICATION_REQUIRED, Traits
from streamsocial_billing.domain.outcomes import Verdict
from streamsocial_billing.domain.payment_entry import PATIENCE_MS, authenticating_until
from streamsocial_billing.domain.refund_rules import EXCEEDS_CHARGE
from tables.payments import PaymentEntry


class Repeat(NamedTuple):
    """Make the same call with the same key."""


class Ask(NamedTuple):
    """Ask the gateway by our reference."""


class Cancel(NamedTuple):
    """End the intent, whose customer was waited for long enough."""


class GiveUp(NamedTuple):
    """It was tried for long enough, and never sent: it has failed."""


class Reject(NamedTuple):
    """It was never called, and must not be: rejected with this reason."""

    reason: str


class Wait(NamedTuple):
    """That is what can be learnt now: store it; where it is no end, the schedule says when to look again."""

    found: Verdict


Step = Repeat | Ask | Cancel | GiveUp | Reject | Wait


class Tried(NamedTuple):
    """What the steps of one try have brought so far; None: that step was not made."""

    repeated: Verdict | None = None
    asked: Verdict | None = None
    canceled: Verdict | None = None


class Terms(NamedTuple):
    """What a try goes by.

    now_ms  when it began, ms since the epoch
    give_up_after_ms  how long a payment that was never sent is tried
    in_doubt  an earlier delivery of this trigger may have called before a crash: of that nothing is stored
    patience_ms  how long an intent may wait for its customer
    """

    now_ms: int
    traits: Traits
    give_up_after_ms: int
    in_doubt: bool
    patience_ms: int = PATIENCE_MS


def next_step(entry: PaymentEntry, tried: Tried, terms: Terms) -> Step:
    """The next step of a try: at most one call, one question, then an end."""
    if "intent" in entry:
        return _asking_for_intent(entry, tried, terms)
    old = terms.traits.past_window(entry["window_from"], terms.now_ms)
    if old or entry["ask_only"]:
        return _asking_first(entry, tried, terms, old)
    return _repeating_first(entry, tried, terms)


def _asking_for_intent(entry: PaymentEntry, tried: Tried, terms: Terms) -> Step:
    """The intent's own status decides: the same key would bring back the first answer, however old."""
    asked, until = tried.asked, authenticating_until(entry, terms.patience_ms)
    if asked is None:
        return Ask()
    if tried.canceled is not None:
        return Wait(tried.canceled)
    wants_customer = asked.status == "unknown" and asked.reason == AUTHENTICATION_REQUIRED
    if wants_customer and asked.error is None and until is not None and until <= terms.now_ms:
        return Cancel()
    return Wait(asked)


def _repeating_first(entry: PaymentEntry, tried: Tried, terms: Terms) -> Step:
    """Inside the window the call is the authority."""
    found, asked = tried.repeated, tried.asked
    if found is None:
        return Repeat()
    if not _may_give_up(entry, found, terms):
        return Wait(found)
    # every try is proven unsent, but a worker that was frozen may have called unseen: ask, twice
    if asked is None:
        return Ask()
    if not asked.absent:
        return Wait(found if asked.status == "unknown" else asked)
    if proven_absent(entry, terms.now_ms, terms.traits):
        return GiveUp()
    return Wait(_absent_so_far(entry, replace(found, absent=True), terms))


def _asking_first(entry: PaymentEntry, tried: Tried, terms: Terms, old: bool) -> Step:
    """A call may charge twice, or only brings back the stored error: first it has to be proven absent."""
    found, asked = tried.repeated, tried.asked
    if asked is None:
        return Ask()
    if not asked.absent:
        return Wait(asked)
    if not proven_absent(entry, terms.now_ms, terms.traits):
        return Wait(_absent_so_far(entry, asked, terms))
    if entry["action"] == "refund" and not entry["reserved_minor"]:
        return Reject(EXCEEDS_CHARGE)  # it holds nothing of its charge
    if not old:
        return Wait(asked)  # the gateway would only bring the error again that it keeps under our key
    if found is None:
        return Repeat()
    if found.waits:
        return Wait(found)
    if _may_give_up(entry, found, terms):
        return GiveUp()
    return Wait(replace(found, window_from=terms.now_ms))


def _may_give_up(entry: PaymentEntry, found: Verdict, terms: Terms) -> bool:
    """True if the call was tried and surely not executed, like all before it, for long enough."""
    unsent = found.status == "unknown" and not found.ambiguous and not found.waits
    return unsent and not terms.in_doubt and gives_up(entry, terms.now_ms, terms.give_up_after_ms)


def _absent_so_far(entry: PaymentEntry, found: Verdict, terms: Terms) -> Verdict:
    """Absent, but not for long enough: what was charged a moment ago may not be findable yet."""
    since_ms = terms.now_ms - (entry["absent_at"] or terms.now_ms)
    left_s = terms.traits.consistency_delay_s - since_ms / 1000
    return replace(found, again_after_s=max(left_s, 0.0))


def after_doubt(entry: PaymentEntry, found: Verdict) -> Verdict:
    """What a repeat brought; "invalid" speaks of this call alone.

    An earlier one may have charged: then a person has to look.
    """
    if found.status == "failed" and entry["ever_ambiguous"] and not found.stored:
        return Verdict("parked", "invalid_after_doubt", error=found.error)
    return found
