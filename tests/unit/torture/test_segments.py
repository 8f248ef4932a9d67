"""Which transaction a marker in a log segment ends."""

from __future__ import annotations

from torture.segments import Batch, Ended, Place, Written, _in_partition

PLACE: Place = ("results", 2)
ELSEWHERE: Place = ("metrics", 0)
PRODUCER = 7
RECORD = (b"key", b"value", ())


def data(first: int, at_ms: int) -> Batch:
    """One record in a transaction."""
    return Batch(first, PRODUCER, 0, None, [RECORD], at_ms)


def marker(first: int, at_ms: int, says: str = "commit") -> Batch:
    """The end of a transaction in this partition."""
    return Batch(first, PRODUCER, 0, says, [], at_ms)


def ended(prepared_ms: int, *places: Place) -> Ended:
    """A transaction whose end was decided then."""
    return Ended(frozenset(places or (PLACE,)), prepared_ms)


def read(batches: list[Batch], transactions: list[Ended]) -> list[tuple[int, int | None, str | None]]:
    """Per record its offset, the number of its transaction, what became of that."""
    found: list[Written] = list(_in_partition(PLACE, batches, {PRODUCER: transactions}))
    return [(one.offset, one.transaction, one.outcome) for one in found]


def test_each_marker_ends_the_next_transaction_that_took_in_the_partition() -> None:
    """Transactions of other partitions count, but have no marker here; an open one has no number."""
    batches = [data(0, 10), marker(1, 21), data(2, 30), marker(3, 51, "abort"), data(4, 60)]
    transactions = [ended(20), ended(40, ELSEWHERE), ended(50)]
    assert [(0, 0, "commit"), (2, 2, "abort"), (4, None, None)] == read(batches, transactions)


def test_a_marker_that_a_restarted_broker_repeats_ends_nothing() -> None:
    """Long seed 101: the broker died between a marker and the completion, then wrote the marker again."""
    batches = [data(0, 10), marker(1, 21), marker(2, 25), data(3, 30), marker(4, 41, "abort"), marker(5, 45)]
    assert [(0, 0, "commit"), (3, 1, "abort")] == read(batches, [ended(20), ended(40)])


def test_a_marker_without_records_ends_its_transaction_all_the_same() -> None:
    """A partition may be in a transaction whose only record was refused."""
    batches = [marker(0, 21, "abort"), data(1, 30), marker(2, 41)]
    assert [(1, 1, "commit")] == read(batches, [ended(20), ended(40)])
