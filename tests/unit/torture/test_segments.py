"""Which transaction a marker in a log segment ends."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.log_segments import batch, decision, end_marker, record

from torture.replicas import Home, leading_folders
from torture.segments import (
    TRANSACTIONS,
    Batch,
    Ended,
    Place,
    Written,
    _ends,
    _in_partition,
    log_end,
    transactional_records,
)

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


class Led:
    """Three brokers whose leaders are given."""

    def __init__(self, folder: Path, leaders: dict[Place, int]) -> None:
        self.homes = {number: Home(folder / f"broker-{number}" / "log", 0) for number in (1, 2, 3)}
        self._leaders = leaders

    def leaders(self) -> dict[Place, int]:
        """As they were given."""
        return self._leaders


def put(folder: Path, *batches: bytes, first: int = 0) -> None:
    """A partition's only segment."""
    folder.mkdir(parents=True)
    (folder / f"{first:020}.log").write_bytes(b"".join(batches))


def test_of_three_brokers_the_leader_of_each_partition_is_read(tmp_path: Path) -> None:
    """Decisions at one broker, records with their marker at another; what followers lack does not count."""
    brokers = Led(tmp_path, {(TRANSACTIONS, 0): 3, PLACE: 2})
    homes = {number: home.log for number, home in brokers.homes.items()}
    put(homes[1] / f"{TRANSACTIONS}-0")  # a follower that has heard nothing yet
    decided = batch(0, decision(1, [PLACE])) + batch(1, decision(2, [PLACE]))
    put(homes[3] / f"{TRANSACTIONS}-0", decided, batch(2, decision(4, [])))
    put(homes[2] / "results-2", batch(0, record(b"a"), flags=0x10), batch(1, end_marker(), flags=0x30))
    put(homes[1] / "results-2", batch(0, record(b"of before"), flags=0x10))
    folders = leading_folders(brokers)
    [one] = transactional_records(folders, "results")
    assert (PLACE, 0, b"a", "commit") == (one.place, one.offset, one.value, one.outcome)
    assert 2 == log_end(folders[PLACE])
    assert 1 == log_end(homes[1] / "results-2")


def test_the_end_of_a_log_is_behind_its_last_whole_batch(tmp_path: Path) -> None:
    """An empty last segment begins at the end; half a batch is none; no segment is an empty log."""
    put(tmp_path / "a-0", batch(4, record(b"a")), batch(5, record(b"b"))[:-1], first=4)
    assert 5 == log_end(tmp_path / "a-0")
    (tmp_path / "a-0" / f"{5:020}.log").touch()
    assert 5 == log_end(tmp_path / "a-0")
    (tmp_path / "b-0").mkdir()
    assert 0 == log_end(tmp_path / "b-0")


ONGOING, PREPARE_COMMIT, PREPARE_ABORT, COMPLETE_COMMIT, COMPLETE_ABORT = 1, 2, 3, 4, 5


@pytest.mark.parametrize(
    ("states", "which"),
    [
        ([ONGOING, PREPARE_COMMIT, COMPLETE_COMMIT, ONGOING, PREPARE_ABORT, COMPLETE_ABORT], [1, 4]),
        ([ONGOING, PREPARE_COMMIT, PREPARE_COMMIT, PREPARE_ABORT, COMPLETE_ABORT], [3]),
        ([ONGOING, PREPARE_COMMIT, ONGOING, PREPARE_ABORT, COMPLETE_ABORT], [3]),
        ([ONGOING, PREPARE_COMMIT, COMPLETE_COMMIT, COMPLETE_COMMIT, ONGOING, PREPARE_COMMIT], [1, 5]),
        ([ONGOING, PREPARE_COMMIT, ONGOING], []),
    ],
)
def test_a_decision_that_too_few_replicas_took_is_not_one(states: list[int], which: list[int]) -> None:
    """Long seed 201: two PrepareCommit, a minute later PrepareAbort, all markers ABORT: one transaction."""
    said = [(PRODUCER, state, ended(number)) for number, state in enumerate(states)]
    assert which == [one.prepared_ms for one in _ends(said).get(PRODUCER, [])]
