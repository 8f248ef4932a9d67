"""The decision about an event, and what its outcome leaves behind.

Operations: a payment is sent, sent again, sent again altered, tried again by a trigger, in any order.
Checked properties:
1. the gateway is called only for a payment without entry, or for an open one by a trigger;
2. each payment is charged at most once, and a final outcome never changes;
3. the user's state is the fold of the results, and its money is what the gateway moved;
4. nothing that comes in is changed.
"""

import copy
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace
from support.charge_states import after

from streamsocial_billing.domain.decision import (
    DEDUP_RETENTION_MS,
    Decision,
    Execute,
    Open,
    Reject,
    Replay,
    decide,
    gives_up,
    is_due,
    settles,
)
from streamsocial_billing.domain.events import PaymentEvent
from streamsocial_billing.domain.known import Received
from streamsocial_billing.domain.outcomes import Called, Verdict
from streamsocial_billing.domain.payment_entry import after_retry, first_entry
from streamsocial_billing.domain.payment_identity import fingerprint, gateway_key
from streamsocial_billing.domain.statuses import FINAL
from tables.charges import ChargeState
from tables.payments import PaymentEntry, SettledBy

NOW = 1_764_600_000_000
DAY = 86_400_000
EVENT = PaymentEvent(
    payment_id="p1",
    user_id="u1",
    action="charge",
    product="gift",
    amount_minor=500,
    currency="USD",
    payment_method="pm_card_visa",
    gateway="simulated",
    business_ref=None,
    refund_of=None,
    requested_at=NOW,
)


def decided(event: PaymentEvent = EVENT, entry: PaymentEntry | None = None, **changes: Any) -> Decision:
    given_: dict[str, Any] = {
        "now_ms": NOW,
        "appended_ms": NOW,
        "dedup_retention_ms": DEDUP_RETENTION_MS,
        "configured_gateways": frozenset({"simulated"}),
    }
    return decide(event, entry, **(given_ | changes))


def stored(
    status: str = "succeeded", event: PaymentEvent = EVENT, *, now_ms: int = NOW + 10, **changes: Any
) -> PaymentEntry:
    """The entry after two calls; `changes`: of the verdict."""
    given_: dict[str, Any] = {
        "status": status,
        "reason": None if status == "succeeded" else "why",
        "gateway_ref": "ch_1" if status == "succeeded" else None,
    }
    received = Received(event, {"topic": "payments", "partition": 1, "offset": 7}, NOW)
    return first_entry(received, Called(Verdict(**(given_ | changes)), "acct", 2), now_ms)


# ---- decide


def test_a_new_payment_is_charged_with_its_own_key() -> None:
    """The key is a function of the event, so a redelivery makes the same call."""
    assert Execute(gateway_key(EVENT), fingerprint(EVENT)) == decided()


@pytest.mark.parametrize("status", sorted(FINAL))
def test_a_final_payment_is_replayed_without_a_call(status: str) -> None:
    """A re-sent event gets the stored outcome again."""
    entry = stored(status)

    assert Replay(status, entry["reason"], entry["gateway_ref"], 2) == decided(entry=entry)


def test_an_open_payment_is_not_settled_by_a_re_sent_event() -> None:
    """It makes the next try due now, no more."""
    entry = stored("unknown")
    decision = decided(entry=entry)

    assert isinstance(decision, Open)
    assert ("unknown", "why", None, 2) == (
        decision.status,
        decision.reason,
        decision.gateway_ref,
        decision.attempts,
    )
    assert entry | {"next_try_at": NOW} == decision.entry
    assert NOW + 10 + 5000 == entry["next_try_at"]


def test_a_try_that_is_due_is_not_put_off() -> None:
    """Sending an event again and again cannot starve its payment."""
    entry = stored("unknown", now_ms=NOW - 60_000)
    decision = decided(entry=entry)

    assert isinstance(decision, Open)
    assert NOW - 55_000 == decision.entry["next_try_at"]


def test_a_parked_payment_waits_for_a_person() -> None:
    """A re-sent event sets no try for it."""
    entry = stored("parked")

    assert Open("parked", "why", None, 2, entry=entry) == decided(entry=entry)


@pytest.mark.parametrize("status", ["succeeded", "declined", "unknown", "parked"])
def test_another_payment_under_a_known_id_is_refused(status: str) -> None:
    """Nothing is stored, both fingerprints are told for the log."""
    other = replace(EVENT, amount_minor=501)
    decision = decided(other, stored(status))

    assert isinstance(decision, Reject)
    assert ("idempotency_mismatch", False) == (decision.reason, decision.stored)
    assert decision.detail is not None
    assert fingerprint(EVENT) in decision.detail and fingerprint(other) in decision.detail


@pytest.mark.parametrize(
    ("requested_at", "appended_ms", "expired"),
    [
        (NOW - DEDUP_RETENTION_MS, NOW, False),
        (NOW - DEDUP_RETENTION_MS - 1, NOW, True),
        (NOW, NOW - DEDUP_RETENTION_MS, False),
        (NOW, NOW - DEDUP_RETENTION_MS - 1, True),
        (0, NOW, True),
    ],
)
def test_an_event_older_than_the_memory_is_never_charged(
    requested_at: int, appended_ms: int, expired: bool
) -> None:
    """The older of its own and the broker's time counts."""
    decision = decided(replace(EVENT, requested_at=requested_at), appended_ms=appended_ms)

    assert expired == (Reject("expired", stored=False) == decision)
    assert expired != isinstance(decision, Execute)


def test_an_old_event_with_an_entry_is_replayed() -> None:
    """Age matters only where nothing is known."""
    assert isinstance(decided(entry=stored(), now_ms=NOW + 400 * DAY), Replay)


def test_unsupported_action_is_not_stored() -> None:
    """A worker that knows no refunds never calls for one, never stores one."""
    refund = replace(EVENT, action="refund", refund_of="p0")

    assert Reject("unsupported_action", stored=False) == decided(refund, actions=frozenset({"charge"}))
    assert Execute(gateway_key(refund), fingerprint(refund)) == decided(refund)


def test_a_gateway_that_is_not_configured_is_never_called() -> None:
    """The route is part of the event: it goes nowhere else either."""
    event = replace(EVENT, gateway="stripe")

    assert Reject("gateway_not_configured", stored=False) == decided(event)
    assert isinstance(decided(event, configured_gateways=frozenset({"stripe"})), Execute)


def test_a_known_payment_is_replayed_though_its_gateway_is_gone() -> None:
    """A change of the configuration changes no outcome."""
    assert isinstance(decided(entry=stored(), configured_gateways=frozenset()), Replay)


def test_an_entry_of_a_newer_release_stops_the_worker() -> None:
    """Its fingerprint cannot be compared, so nothing is decided."""
    with pytest.raises(ValueError, match="newer release"):
        decided(entry=stored() | {"fingerprint_version": 2})


# ---- outcomes


def test_an_entry_holds_what_a_later_try_needs() -> None:
    """The event may be gone from the topic by then."""
    assert {
        "fingerprint": fingerprint(EVENT),
        "fingerprint_version": 1,
        "key_version": 1,
        "action": "charge",
        "product": "gift",
        "status": "unknown",
        "reason": "why",
        "gateway": "simulated",
        "gateway_account": "acct",
        "gateway_ref": None,
        "amount_minor": 500,
        "currency": "USD",
        "refunded_minor": 0,
        "reserved_minor": 0,
        "payment_method": "pm_card_visa",
        "business_ref": None,
        "refund_of": None,
        "charge_ref": None,
        "conflicts_with": None,
        "origin": "event",
        "soft": False,
        "attempts": 2,
        "ever_ambiguous": True,
        "ask_only": False,
        "requested_at": NOW,
        "first_seen_at": NOW,
        "window_from": NOW,
        "absent_at": None,
        "processed_at": NOW + 10,
        "step": 0,
        "due_at": NOW + 5010,
        "not_before": None,
        "next_try_at": NOW + 5010,
        "held_since": None,
        "settled_by": None,
        "source": {"topic": "payments", "partition": 1, "offset": 7},
        "last_error": "time-out",
    } == stored("unknown", ambiguous=True, error="time-out")


def retried(
    entry: PaymentEntry, *, calls: int = 3, now_ms: int = NOW + 9000, by: SettledBy | None = None,
    **changes: Any,
) -> PaymentEntry:  # fmt: skip
    given_: dict[str, Any] = {"status": "unknown", "reason": "gateway_unavailable", "error": "refused"}
    return after_retry(entry, Verdict(**(given_ | changes)), calls=calls, now_ms=now_ms, by=by)


def test_a_retry_adds_to_the_entry() -> None:
    """Tries add up, the first event stays the source, one ambiguous try is never forgotten."""
    entry = stored("unknown", ambiguous=True)
    again = retried(entry)
    done = retried(again, status="succeeded", reason=None, gateway_ref="ch_9", calls=1, error=None)

    assert (5, True, NOW + 39_000) == (again["attempts"], again["ever_ambiguous"], again["next_try_at"])
    assert (6, "succeeded", "ch_9", None) == (
        done["attempts"],
        done["status"],
        done["gateway_ref"],
        done["next_try_at"],
    )
    assert entry["source"] == done["source"] and entry["first_seen_at"] == done["first_seen_at"]
    assert retried(stored("unknown"), ambiguous=True)["ever_ambiguous"]


@pytest.mark.parametrize("status", sorted(FINAL))
def test_a_final_outcome_never_changes(status: str) -> None:
    """No retry, however late, lowers or raises it."""
    with pytest.raises(ValueError, match="never changes again"):
        retried(stored(status))


def test_row_parked_is_settled_by_a_person_once() -> None:
    """Who, why and when stay in the entry; then it is final like any other."""
    by: SettledBy = {"actor": "ann", "reason": "seen in the gateway's list", "at": NOW}
    done = retried(stored("parked"), status="succeeded", reason=None, gateway_ref="ch_9", calls=0, by=by)

    assert ("succeeded", "ch_9", by, 2) == (
        done["status"],
        done["gateway_ref"],
        done["settled_by"],
        done["attempts"],
    )
    with pytest.raises(ValueError, match="never changes again"):
        retried(done, status="failed")


def test_a_trigger_acts_only_on_an_unknown_payment_that_is_due() -> None:
    """Triggers may be lost, doubled or early."""
    entry = stored("unknown")

    assert settles(entry) and not settles(stored("parked")) and not settles(stored()) and not settles(None)
    assert not is_due(entry, NOW + 5009) and is_due(entry, NOW + 5010)
    for other in (None, stored(), stored("parked")):
        assert not is_due(other, NOW + DAY)
    assert is_due(entry | {"next_try_at": None}, NOW)


@pytest.mark.parametrize(
    ("entry", "age_ms", "given_up"),
    [
        (stored("unknown"), DAY, False),
        (stored("unknown"), DAY + 1, True),
        (stored("unknown", ambiguous=True), 400 * DAY, False),
        (stored("parked"), 400 * DAY, False),
        (stored("succeeded"), 400 * DAY, False),
    ],
)
def test_only_a_proven_unsent_payment_is_given_up(entry: PaymentEntry, age_ms: int, given_up: bool) -> None:
    """What may have been charged is never failed by a timer."""
    assert given_up == gives_up(entry, NOW + age_ms, DAY)


# ---- the user's state


def test_a_state_begins_with_the_first_result() -> None:
    """A user exists once something was decided for him."""
    assert {
        "user_id": "u1",
        "money": {"USD": {"charged_minor": 500, "refunded_minor": 0}},
        "counts": {"succeeded": 1},
        "refund_counts": {},
        "last_payment": {"payment_id": "p1", "status": "succeeded", "at": 5},
    } == after(None, processed_at=5)


def test_replays_are_counted_apart_and_move_nothing() -> None:
    """Money, last payment and the other counts stay as they were."""
    first = after(None, processed_at=5)
    again = after(first, replayed=True, processed_at=6)

    assert first | {"counts": {"succeeded": 1, "replayed": 1}} == again


@pytest.mark.parametrize("status", ["declined", "failed", "rejected", "unknown", "parked"])
def test_only_success_moves_money(status: str) -> None:
    """Other outcomes are counted."""
    state = after(None, status=status, processed_at=5)

    assert ({}, {status: 1}) == (state["money"], state["counts"])


# ---- any sequence

Step = tuple[str, int, str]
steps = st.lists(
    st.tuples(
        st.sampled_from(["send", "send", "altered", "trigger"]),
        st.integers(0, 3),
        st.sampled_from(["succeeded", "declined", "failed", "unknown", "parked"]),
    ),
    max_size=40,
)


class World:
    """One user's tables, results and gateway, driven as the agent drives them."""

    def __init__(self) -> None:
        self.entries: dict[str, PaymentEntry] = {}
        self.state: ChargeState | None = None
        self.results: list[tuple[str, str, int, bool]] = []
        self.charged: list[str] = []

    def emit(self, payment_id: str, status: str, amount: int, replayed: bool) -> None:
        before = copy.deepcopy(self.state)
        state = after(
            self.state, status=status, amount_minor=amount, replayed=replayed, payment_id=payment_id
        )
        assert before == self.state
        self.state = state
        self.results.append((payment_id, status, amount, replayed))

    def send(self, event: PaymentEvent, outcome: str) -> None:
        entry = self.entries.get(event.payment_id)
        before = copy.deepcopy(entry)
        decision = decided(event, entry)
        assert before == entry
        if isinstance(decision, Execute):
            assert entry is None
            self.called(event.payment_id, outcome)
            self.entries[event.payment_id] = stored(outcome, event)
            self.emit(event.payment_id, outcome, event.amount_minor, False)
        elif isinstance(decision, Reject):
            self.emit(event.payment_id, "rejected", event.amount_minor, False)
        else:
            assert isinstance(decision, Open | Replay)
            if isinstance(decision, Open):
                self.entries[event.payment_id] = decision.entry
            self.emit(event.payment_id, decision.status, event.amount_minor, True)

    def trigger(self, payment_id: str, outcome: str) -> None:
        entry = self.entries.get(payment_id)
        if entry is None or not settles(entry):
            return
        self.called(payment_id, outcome)
        self.entries[payment_id] = retried(entry, status=outcome)
        if outcome in FINAL:
            self.emit(payment_id, outcome, entry["amount_minor"], False)

    def called(self, payment_id: str, outcome: str) -> None:
        if outcome == "succeeded":
            self.charged.append(payment_id)


@given(steps)
def test_any_sequence_charges_once_and_the_state_is_the_fold_of_the_results(sequence: list[Step]) -> None:
    """Properties 1 to 4 of this file's first lines."""
    world = World()
    finals: dict[str, str] = {}
    for kind, number, outcome in sequence:
        event = replace(EVENT, payment_id=f"p{number}", amount_minor=100 + number)
        if kind == "trigger":
            world.trigger(event.payment_id, outcome)
        else:
            world.send(replace(event, product="upgrade") if kind == "altered" else event, outcome)
        for payment_id, entry in world.entries.items():
            if entry["status"] in FINAL:
                assert entry["status"] == finals.setdefault(payment_id, entry["status"])

    assert len(set(world.charged)) == len(world.charged)
    first = [(status, amount) for _, status, amount, replayed in world.results if not replayed]
    moved = sum(amount for status, amount in first if status == "succeeded")
    at_gateway = sum(100 + int(payment_id[1:]) for payment_id in world.charged)
    money = world.state["money"].get("USD") if world.state else None
    assert at_gateway == moved == (money["charged_minor"] if money else 0)
    assert len(world.results) == (sum(world.state["counts"].values()) if world.state else 0)
    replays = sum(replayed for *_, replayed in world.results)
    assert replays == (world.state["counts"].get("replayed", 0) if world.state else 0)
