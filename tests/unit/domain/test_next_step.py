"""What to do next about an open payment, decided without doing it: each history of a try, its next step."""

from typing import Any

import pytest
from msgspec.structs import replace

from streamsocial_billing.domain.events import PaymentEvent
from streamsocial_billing.domain.gateway_calls import Traits
from streamsocial_billing.domain.known import Received
from streamsocial_billing.domain.next_step import (
    Ask,
    GiveUp,
    Reject,
    Repeat,
    Step,
    Terms,
    Tried,
    Wait,
    after_doubt,
    next_step,
)
from streamsocial_billing.domain.outcomes import Called, Verdict
from streamsocial_billing.domain.payment_entry import first_entry
from tables.payments import PaymentEntry

NOW = 1_790_000_000_000
HOUR = 3_600_000
TRAITS = Traits(key_safe_window_s=18 * 3_600, consistency_delay_s=60)

SUCCEEDED = Verdict("succeeded", None, "ch_1")
LOST = Verdict("unknown", "outcome_unknown", ambiguous=True)
UNSENT = Verdict("unknown", "gateway_unavailable", error="unreachable")
HELD_BACK = replace(UNSENT, waits=True)
ABSENT = Verdict("unknown", "outcome_unknown", absent=True)
UNANSWERED = Verdict("unknown", "outcome_unknown", error="timeout")


def entry(*, age_h: float = 1, action: str = "charge", **fields: Any) -> PaymentEntry:
    """Of a payment that became unknown so many hours ago."""
    event = PaymentEvent(
        payment_id="p1", user_id="u1", action=action, product="gift", amount_minor=500, currency="USD",
        payment_method="pm_card_visa", gateway="simulated", refund_of=None if action == "charge" else "c1",
        requested_at=NOW,
    )  # fmt: skip
    appended_ms = NOW - round(age_h * HOUR)
    made = first_entry(Received(event, None, appended_ms), Called(UNSENT, "acct", 1), appended_ms)
    made.update(fields)  # type: ignore[typeddict-item]
    return made


def step(of: PaymentEntry, *, in_doubt: bool = False, **tried: Verdict) -> Step:
    """The next step after what was tried; tried for a day before it is given up."""
    return next_step(of, Tried(**tried), Terms(NOW, TRAITS, 24 * HOUR, in_doubt))


@pytest.mark.parametrize(
    ("of", "first"),
    [
        (entry(), Repeat()),
        (entry(age_h=19), Ask()),
        (entry(ask_only=True), Ask()),
        (entry(age_h=99, window_from=NOW - HOUR), Repeat()),
    ],
    ids=["inside the window", "past the window", "a stored error", "a new window"],
)
def test_the_first_step_follows_the_window_of_the_key(of: PaymentEntry, first: Step) -> None:
    """Inside it the same call is the authority; else only a question is safe."""
    assert first == step(of)


@pytest.mark.parametrize("found", [SUCCEEDED, LOST, UNSENT, HELD_BACK])
def test_what_a_repeat_brings_is_stored(found: Verdict) -> None:
    """Whatever it is, while there is time left to try."""
    assert Wait(found) == step(entry(), repeated=found)


OVERDUE = entry(age_h=25, window_from=NOW - HOUR)


@pytest.mark.parametrize(
    ("of", "found", "in_doubt"),
    [(OVERDUE, LOST, False), (OVERDUE, HELD_BACK, False), (OVERDUE, UNSENT, True),
     (entry(age_h=25, window_from=NOW - HOUR, ever_ambiguous=True), UNSENT, False)],
    ids=["may have charged", "called nobody", "delivered before", "was in doubt once"],
)  # fmt: skip
def test_only_what_was_surely_never_sent_is_given_up(
    of: PaymentEntry, found: Verdict, in_doubt: bool
) -> None:
    """However long it has been tried."""
    assert Wait(found) == step(of, in_doubt=in_doubt, repeated=found)


def test_before_it_is_given_up_the_gateway_is_asked_twice() -> None:
    """A worker that was frozen may have called unseen: absent now, and absent the consistency delay ago."""
    seen_absent = {**OVERDUE, "absent_at": NOW - 60_000}
    just_seen = {**OVERDUE, "absent_at": NOW - 20_000}

    assert Ask() == step(OVERDUE, repeated=UNSENT)
    assert Wait(SUCCEEDED) == step(OVERDUE, repeated=UNSENT, asked=SUCCEEDED)
    assert Wait(UNSENT) == step(OVERDUE, repeated=UNSENT, asked=UNANSWERED)
    later = replace(UNSENT, absent=True, again_after_s=60.0)
    assert Wait(later) == step(OVERDUE, repeated=UNSENT, asked=ABSENT)
    sooner = replace(later, again_after_s=40.0)
    assert Wait(sooner) == step(just_seen, repeated=UNSENT, asked=ABSENT)  # type: ignore[arg-type]
    assert GiveUp() == step(seen_absent, repeated=UNSENT, asked=ABSENT)  # type: ignore[arg-type]


@pytest.mark.parametrize("found", [SUCCEEDED, UNANSWERED, Verdict("parked", "found_disagrees")])
def test_past_the_window_what_the_gateway_says_is_stored(found: Verdict) -> None:
    """Without any call."""
    assert Wait(found) == step(entry(age_h=19), asked=found)


def test_past_the_window_absence_has_to_be_proven() -> None:
    """Said twice, the consistency delay apart; then one call may be made, which starts a new window."""
    old = entry(age_h=19)
    proven = entry(age_h=19, absent_at=NOW - 60_000)

    assert Wait(replace(ABSENT, again_after_s=60.0)) == step(old, asked=ABSENT)
    assert Repeat() == step(proven, asked=ABSENT)
    assert Wait(replace(LOST, window_from=NOW)) == step(proven, asked=ABSENT, repeated=LOST)
    assert Wait(HELD_BACK) == step(proven, asked=ABSENT, repeated=HELD_BACK)
    assert GiveUp() == step(entry(age_h=25, absent_at=NOW - 60_000), asked=ABSENT, repeated=UNSENT)


def test_a_stored_error_is_never_called_again_inside_the_window() -> None:
    """The gateway would only bring it back: absence, proven too, waits for the end of the window."""
    of = entry(ask_only=True, absent_at=NOW - 60_000)
    assert Wait(ABSENT) == step(of, asked=ABSENT)


def test_a_refund_that_holds_nothing_of_its_charge_is_never_called() -> None:
    """Proven absent, it is rejected; one that holds its part is called."""
    fields: dict[str, Any] = {"action": "refund", "age_h": 19, "absent_at": NOW - 60_000}
    assert Reject("refund_exceeds_charge") == step(entry(**fields), asked=ABSENT)
    assert Repeat() == step(entry(**fields, reserved_minor=500), asked=ABSENT)


def test_invalid_after_doubt_is_for_a_person() -> None:
    """It speaks of this call alone; an earlier one may have charged."""
    invalid = Verdict("failed", "invalid_request", error="why")
    assert invalid == after_doubt(entry(), invalid)
    parked = Verdict("parked", "invalid_after_doubt", error="why")
    assert parked == after_doubt(entry(ever_ambiguous=True), invalid)
