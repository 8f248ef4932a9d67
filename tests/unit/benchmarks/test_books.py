"""Which books are right, and what is said of wrong ones."""

from __future__ import annotations

import json

import pytest

from benchmarks.comparison.offered import Load
from benchmarks.comparison.outputs import add_up, books
from benchmarks.comparison.records import Changelog


def charged(payment_id: str) -> bytes:
    """A peer's result of a charge."""
    return json.dumps({"payment_id": payment_id, "status": "charged"}).encode()


def duplicate(payment_id: str) -> bytes:
    """A peer's result of a payment that was sent again."""
    return json.dumps({"payment_id": payment_id, "status": "duplicate"}).encode()


def of_ours(payment_id: str, *, replayed: bool) -> bytes:
    """A result of our worker."""
    return json.dumps({"payment_id": payment_id, "status": "succeeded", "replayed": replayed}).encode()


def sent(events: int, distinct: int) -> Load:
    """What was sent."""
    load = Load(1, ours=False)
    load.sent, load.distinct, load.amount_minor = events, distinct, 499 * distinct
    return load


RIGHT = [charged("a"), charged("b"), duplicate("a")]


def test_right_books_have_no_faults() -> None:
    """A charge for each payment, an answer for each duplicate, a metric for each event."""
    state = Changelog(2, 0, 2, 1, 998)
    assert [] == books(sent(3, 2), RIGHT, RIGHT, state).faults()


def test_results_in_our_words_are_counted_like_those_of_the_peers() -> None:
    """`succeeded` and not replayed is a charge."""
    ours = [of_ours("a", replayed=False), of_ours("a", replayed=True)]
    assert [] == books(sent(2, 1), ours, ours, None).faults()


@pytest.mark.parametrize(
    ("results", "said"),
    [
        ([charged("a"), charged("b"), charged("a")], "payments charged twice or more: 1"),
        ([charged("a"), duplicate("a")], "1 of 2 payments charged"),
        (RIGHT[:2], "0 duplicates for 1"),
    ],
)
def test_wrong_results_are_said(results: list[bytes], said: str) -> None:
    """Charged twice, never charged, an answer that is missing."""
    assert said in books(sent(3, 2), results, RIGHT, None).faults()


def test_a_metric_too_few_is_said() -> None:
    """Metrics are in the same transaction."""
    assert ["2 metrics for 3 events"] == books(sent(3, 2), RIGHT, RIGHT[:2], None).faults()


def test_a_changelog_that_does_not_add_up_is_said() -> None:
    """Results may be right and the state that the next owner reads wrong."""
    (said,) = books(sent(3, 2), RIGHT, RIGHT, Changelog(1, 0, 1, 1, 499)).faults()
    assert said.startswith("changelog")


def test_a_changelog_that_is_not_there_is_wrong() -> None:
    """A peer that should have one, and has none, adds up to nothing."""
    assert [] != books(sent(3, 2), RIGHT, RIGHT, add_up([], ours=False)).faults()


def test_states_are_added_up_in_the_words_of_both() -> None:
    """Ours has counts and money by currency; a state that cannot be read is counted as such."""
    ours = {"counts": {"succeeded": 2, "replayed": 1}, "money": {"USD": {"charged_minor": 998}}}
    peer = {"charges": 2, "duplicates": 1, "charged_minor": 998}
    assert Changelog(1, 0, 2, 1, 998) == add_up([json.dumps(ours).encode()], ours=True)
    assert Changelog(2, 1, 2, 1, 998) == add_up([json.dumps(peer).encode(), b"\x80"], ours=False)


def test_the_load_is_the_same_for_the_same_seed_and_a_tenth_is_sent_again() -> None:
    """Every peer gets the same users and repeats; only the field names differ."""
    ours, theirs = Load(1, ours=True), Load(1, ours=False)
    pairs = [(ours.next(), theirs.next()) for _ in range(2000)]
    for name in ("payment_id", "user_id", "amount_minor"):
        assert [one[name] for one, _ in pairs] == [one[name] for _, one in pairs]
    assert 150 < ours.sent - ours.distinct < 250
    assert 30 > abs(len(json.dumps(pairs[0][0])) - len(json.dumps(pairs[0][1]))), "about the same size"
