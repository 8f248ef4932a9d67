"""The short ways of a charge say what the long ones say: each pair is given the same, and compared.

Hypothesis makes events, outcomes, rows; what is written is compared as bytes, as others read it.
"""

from __future__ import annotations

from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import DecodeError
from msgspec.structs import replace

from streamsocial_billing.domain.charge_state import charge_state_after, state_after
from streamsocial_billing.domain.decision import Execute
from streamsocial_billing.domain.events import ACTIONS, ENCODER, PRODUCTS, PaymentEvent
from streamsocial_billing.domain.gateway_calls import (
    Ambiguous,
    Declined,
    Invalid,
    KeyMismatch,
    NotSent,
    Outcome,
    Succeeded,
    Waiting,
)
from streamsocial_billing.domain.known import Known, Received
from streamsocial_billing.domain.outcomes import Called, verdict
from streamsocial_billing.domain.payment_entry import first_entry, settled_row
from streamsocial_billing.domain.payment_identity import fingerprint
from streamsocial_billing.domain.results import ChargeResult
from streamsocial_billing.domain.statuses import STATUSES
from streamsocial_billing.payments.following import Following
from streamsocial_billing.payments.record_outcome import Change, is_over, record, record_first
from tables.charges import KnownState, read_charge_state, read_known_state
from tables.payments import SettledRow, written
from tables.rows import InvalidRow

NOW = 1_764_600_000_000
ids = st.from_regex(r"[A-Za-z0-9_-]{1,64}", fullmatch=True)
currencies = st.sampled_from(["USD", "EUR", "JPY"])
amounts = st.integers(1, 10**12)
texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=9)
times = st.integers(0, NOW)
events = st.builds(
    PaymentEvent, payment_id=ids, user_id=ids, product=st.sampled_from(sorted(PRODUCTS)),
    amount_minor=amounts, currency=currencies, payment_method=ids, gateway=st.just("simulated"),
    business_ref=st.none() | ids, requested_at=times,
)  # fmt: skip
outcomes: st.SearchStrategy[Outcome] = st.one_of(
    st.builds(Succeeded, texts), st.builds(Declined, texts, st.none() | texts, st.booleans()),
    st.builds(Succeeded, ids, ids, st.none() | ids), st.builds(Waiting, texts, ids, st.none() | ids),
    st.builds(Declined, texts, ids, st.booleans(), ids, st.none() | ids),
    st.builds(Invalid, texts, st.booleans()), st.builds(KeyMismatch, texts), st.builds(NotSent, texts),
    st.builds(Ambiguous, texts, st.booleans()),
)  # fmt: skip
calls = st.builds(
    lambda outcome, account, number, ms, doubt: Called(verdict(outcome), account, number, ms).in_doubt(doubt),
    outcomes, texts, st.integers(0, 9), st.none() | times, st.booleans(),
)  # fmt: skip
results = st.builds(
    lambda event, action, status, replayed: ChargeResult(
        payment_id=event.payment_id, user_id="u1", action=action, product=event.product, status=status,
        reason=None, replayed=replayed, amount_minor=event.amount_minor, currency=event.currency,
        gateway="simulated", gateway_ref=None, attempt=1, requested_at=0, processed_at=event.requested_at,
        source=None,
    ),
    events, st.sampled_from(sorted(ACTIONS)), st.sampled_from(STATUSES), st.booleans(),
)  # fmt: skip
PLACES: list[tuple[str, ...]] = [
    ("user_id",), ("money",), ("money", "USD"), ("money", "USD", "charged_minor"), ("counts",),
    ("money", "USD", "refunded_minor"), ("counts", "failed"), ("refund_counts",), ("last_payment",),
    ("last_payment", "payment_id"), ("last_payment", "status"), ("last_payment", "at"),
]  # fmt: skip
older_counts = st.none() | st.dictionaries(st.sampled_from([*STATUSES, "replayed"]), st.integers(1, 9))


@given(older_counts, st.lists(results, max_size=9))
def test_a_state_is_folded_the_same_way(older: dict[str, int] | None, told: list[ChargeResult]) -> None:
    """Result after result, from the first one on or from an older release's row, read anew each time."""
    row: bytes | None = None
    if older is not None:
        state: Any = {"user_id": "u1", "money": {}, "counts": older, "refund_counts": {}}
        row = orjson.dumps(state | {"older_counts": older, "last_payment": None})
    for result in told:
        slow = charge_state_after(None if row is None else orjson.loads(row), result)
        quick = state_after(None if row is None else read_known_state(row), result)
        assert isinstance(quick, KnownState)
        row = ENCODER.encode(quick)
        assert orjson.dumps(slow) == row


@given(results)
def test_a_row_of_another_release_is_folded_the_long_way(result: ChargeResult) -> None:
    """With what it has more, or less."""
    row: Any = {"user_id": "u1", "money": {}, "counts": {"declined": 2}, "last_payment": None}
    for other in (row, row | {"refund_counts": {}, "newer": [1]}):
        assert charge_state_after(other, result) == state_after(other, result)


@given(st.sampled_from(PLACES), st.sampled_from([None, 7, -1, "7", "", {}, [], 1.5, True, ...]))
def test_a_damaged_row_is_not_read_the_short_way(place: tuple[str, ...], value: object) -> None:
    """What the long way refuses the short one does not take; one field has another value, or is missing."""
    row: Any = {
        "user_id": "u1", "money": {"USD": {"charged_minor": 1, "refunded_minor": 0}}, "counts": {"failed": 1},
        "refund_counts": {}, "last_payment": {"payment_id": "p1", "status": "failed", "at": 1},
    }  # fmt: skip
    inside = row
    for name in place[:-1]:
        inside = inside[name]
    if value is ...:
        del inside[place[-1]]
    else:
        inside[place[-1]] = value
    raw = orjson.dumps(row)
    try:
        read_charge_state(raw)
    except InvalidRow:
        with pytest.raises(DecodeError):
            read_known_state(raw)


@given(events, calls)
def test_a_settled_row_is_what_is_written_of_a_first_entry(event: PaymentEvent, called: Called) -> None:
    """Field by field, in the same order."""
    received = Received(event, {"topic": "payments", "partition": 3, "offset": 7}, event.requested_at)
    if is_over(event, _known(event), called.found):
        slow = written(first_entry(received, called, NOW))
        assert orjson.dumps(slow) == ENCODER.encode(settled_row(received, called, NOW, fingerprint(event)))


@given(events, calls)
def test_a_charge_that_is_settled_at_once_changes_the_same(event: PaymentEvent, called: Called) -> None:
    """Rows, result, metric, state, counters; where the short way says that nothing follows, nothing does."""
    received = Received(event, {"topic": "payments", "partition": 3, "offset": 7}, event.requested_at)
    known = _known(event)
    slow = record_first(received, known, first_entry(received, called, NOW, "f" * 64), called)
    quick = record(received, known, Execute("ss1_", "f" * 64), called, NOW)
    assert _as_bytes(slow) == _as_bytes(quick)
    assert replace(slow, rows=(), outcome=quick.outcome) == replace(quick, rows=())
    if quick.outcome is not None:
        assert slow.outcome == quick.outcome
    else:
        untouched: Any = _Untouched()
        Following(untouched, untouched).follow(slow)


def _known(event: PaymentEvent) -> Known:
    return Known(event.user_id, event.payment_id, f"{event.user_id}/{event.payment_id}", None, None)


def _as_bytes(change: Change) -> list[tuple[str, str, bytes]]:
    return [
        (row.table, row.key, (ENCODER.encode if type(row.value) is SettledRow else orjson.dumps)(row.value))
        for row in change.rows
    ]


class _Untouched:
    """Nothing may be done with it."""

    def __getattr__(self, name: str) -> Any:
        raise AssertionError(f"{name}: something follows")

    def __call__(self, *_: Any) -> None:
        raise AssertionError("something follows")
