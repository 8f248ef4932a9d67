"""Which transactions hang because Kafka forgot their marker."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest
from support.log_segments import EPOCH, PRODUCER, batch, decision, end_marker, record

from torture import markers
from torture.markers import Batch, Forgotten, Ledger, Repair, Tail, Truncated, error_of, main, request_of
from torture.replicas import Home
from torture.segments import TRANSACTIONS, Place

ONGOING, PREPARE_COMMIT, PREPARE_ABORT, COMPLETE_COMMIT, COMPLETE_ABORT = 1, 2, 3, 4, 5
PLACE, OTHER = ("results", 2), ("metrics", 0)


def data(first: int, producer: int = PRODUCER) -> Batch:
    """Records in a transaction."""
    return Batch(first, producer, EPOCH, 0x10, 1, b"")


def marker(first: int, coordinator_epoch: int = 4) -> Batch:
    """The end of a transaction."""
    return Batch(first, PRODUCER, EPOCH, 0x30, 1, record(struct.pack(">hi", 0, coordinator_epoch)))


@pytest.fixture
def ledger() -> Ledger:
    """One transaction was ended in order, a second one is open in one partition."""
    one = Ledger()
    for each in (data(10), marker(11), data(12), data(13)):
        one.written(PLACE, each)
    return one


@pytest.mark.parametrize("state", [ONGOING, PREPARE_COMMIT, PREPARE_ABORT])
def test_what_the_coordinator_still_works_on_is_not_forgotten(ledger: Ledger, state: int) -> None:
    """It will be ended by Kafka itself."""
    ledger.decided(PRODUCER, EPOCH, state, [PLACE])
    assert set() == ledger.forgotten()


@pytest.mark.parametrize(
    ("decision", "end", "commits"),
    [(PREPARE_COMMIT, COMPLETE_COMMIT, True), (PREPARE_ABORT, COMPLETE_ABORT, False)],
)
def test_a_marker_that_never_came_is_the_decided_one(
    ledger: Ledger, decision: int, end: int, commits: bool
) -> None:
    """Commit or abort, with the epoch of the decision, the epoch of the coordinator's last marker there."""
    ledger.decided(PRODUCER, EPOCH + 1, decision, [PLACE, OTHER])
    ledger.decided(PRODUCER, EPOCH + 1, end, [])
    assert {Forgotten(PLACE, 12, PRODUCER, EPOCH + 1, commits, 4)} == ledger.forgotten()
    ledger.written(PLACE, marker(14))
    assert set() == ledger.forgotten()


def test_a_later_transaction_elsewhere_hides_no_missing_marker(ledger: Ledger) -> None:
    """The producer was started again meanwhile, and wrote elsewhere; what is open here was decided."""
    ledger.decided(PRODUCER, EPOCH, PREPARE_COMMIT, [PLACE, OTHER])
    ledger.decided(PRODUCER, EPOCH, COMPLETE_COMMIT, [])
    ledger.decided(PRODUCER, EPOCH + 1, PREPARE_ABORT, [OTHER])
    ledger.decided(PRODUCER, EPOCH + 1, COMPLETE_ABORT, [])
    assert {Forgotten(PLACE, 12, PRODUCER, EPOCH, True, 4)} == ledger.forgotten()


def test_a_partition_that_was_not_decided_about_is_left_alone(ledger: Ledger) -> None:
    """The coordinator has not told of its transaction yet; of an unknown producer it never has."""
    ledger.decided(PRODUCER, EPOCH, PREPARE_COMMIT, [OTHER])
    ledger.decided(PRODUCER, EPOCH, COMPLETE_COMMIT, [])
    ledger.written(OTHER, data(5, producer=99))
    assert set() == ledger.forgotten()


def test_a_log_is_read_on_from_its_last_whole_batch(tmp_path: Path) -> None:
    """A batch that is being written comes with the next look; a new segment follows the old one."""
    tail, segment = Tail(tmp_path), tmp_path / "00000000000000000000.log"
    whole, second = batch(0, record(b"a"), 0x10), batch(1, record(b"b"), 0x10)
    segment.write_bytes(whole + second[:-1])
    assert [0] == [one.first for one in tail.more()]
    segment.write_bytes(whole + second)
    (tmp_path / "00000000000000000002.log").write_bytes(batch(2, record(b"c"), 0x10))
    assert [1, 2] == [one.first for one in tail.more()]
    assert [] == list(tail.more())


def test_a_refusal_is_found_in_the_answer() -> None:
    """The code behind the partition that was asked about; of another partition, nothing is believed."""
    asked = Forgotten(PLACE, 12, PRODUCER, EPOCH, True, 0)
    answer = b"\0\0\0\1\0\2" + struct.pack(">q", PRODUCER) + b"\2\x08results\2" + struct.pack(">ih", 2, 47)
    assert 47 == error_of(answer, asked)
    assert -1 == error_of(answer, asked._replace(place=("results", 3)))
    assert b"\x08results" in request_of(asked)


def test_the_command_names_what_is_missing_and_how_it_was_decided(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Exit code 1 with place, offset, producer, decision; 0 once the marker is there; no guess elsewhere."""
    monkeypatch.setattr(markers, "BETWEEN_LOOKS_S", 0.0)
    with pytest.raises(SystemExit, match="2"):
        main([str(tmp_path), "9092"])
    coordinator, partition = tmp_path / "__transaction_state-0", tmp_path / "results-2"
    for folder in (coordinator, partition):
        folder.mkdir()
    states = enumerate((ONGOING, PREPARE_COMMIT, COMPLETE_COMMIT))
    decided = b"".join(batch(first, decision(state, [PLACE])) for first, state in states)
    (coordinator / "00000000000000000000.log").write_bytes(decided)
    segment = partition / "00000000000000000000.log"
    segment.write_bytes(batch(0, record(b"a"), 0x10))
    capsys.readouterr()
    assert 1 == main([str(tmp_path), "9092"])
    assert f"results-2@0: producer {PRODUCER} lacks its COMMIT marker\n" == capsys.readouterr().out
    segment.write_bytes(batch(0, record(b"a"), 0x10) + batch(1, end_marker(), 0x30))
    assert 0 == main([str(tmp_path), "9092"])


def test_a_log_that_a_follower_has_cut_back_is_not_read_on(tmp_path: Path) -> None:
    """Shorter, with another batch in the place of the last one, or without its last segment."""
    segment = tmp_path / "00000000000000000000.log"
    first, second, other = (batch(n, record(value), 0x10) for n, value in ((0, b"a"), (1, b"b"), (1, b"c")))
    for left in (first, first + other, first + other + batch(2, record(b"d"), 0x10)):
        tail = Tail(tmp_path)
        segment.write_bytes(first + second)
        assert [0, 1] == [one.first for one in tail.more()]
        segment.write_bytes(left)
        with pytest.raises(Truncated):
            list(tail.more())
    tail, last = Tail(tmp_path), tmp_path / "00000000000000000009.log"
    last.write_bytes(batch(9, record(b"e"), 0x10))
    list(tail.more())
    last.unlink()
    with pytest.raises(Truncated):
        list(tail.more())


class Brokers:
    """Two brokers whose leaders change at will."""

    def __init__(self, folder: Path) -> None:
        self.homes = {1: Home(folder / "one", 1), 2: Home(folder / "two", 2)}
        self.led: dict[Place, int] = {(TRANSACTIONS, 0): 1, PLACE: 2}

    def leaders(self) -> dict[Place, int]:
        """As of now."""
        return dict(self.led)

    def write(self, node: int, place: Place, *batches: bytes) -> None:
        """Replace a partition's log at a broker."""
        folder = self.homes[node].log / f"{place[0]}-{place[1]}"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "00000000000000000000.log").write_bytes(b"".join(batches))


def test_of_several_brokers_the_coordinator_s_leader_decides_the_partition_s_leader_lacks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Followers' logs say nothing; the marker goes to the leader of its partition; a moved leader is read."""
    brokers, sent = Brokers(tmp_path), list[tuple[int, Forgotten]]()
    monkeypatch.setattr(markers, "write_marker", lambda port, one: sent.append((port, one)))
    states = enumerate((ONGOING, PREPARE_COMMIT, COMPLETE_COMMIT))
    decided = b"".join(batch(first, decision(state, [PLACE])) for first, state in states)
    brokers.write(1, (TRANSACTIONS, 0), decided)
    brokers.write(2, (TRANSACTIONS, 0), batch(0, decision(ONGOING, [PLACE])))
    open_one, ended = batch(0, record(b"a"), 0x10), batch(1, end_marker(), 0x30)
    brokers.write(2, PLACE, open_one)
    brokers.write(1, PLACE, open_one, ended)
    repair = Repair.of(brokers)
    assert [] == repair.run_once()
    missing = Forgotten(PLACE, 0, PRODUCER, EPOCH, True, 0)
    assert [missing] == repair.run_once()
    assert [(2, missing)] == sent
    brokers.led[PLACE] = 1  # the broker that has the marker leads now
    assert [[], []] == [repair.run_once() for _ in range(2)]
    brokers.led |= {PLACE: 2, (TRANSACTIONS, 0): 2}  # at this coordinator the transaction still goes on
    assert [[], []] == [repair.run_once() for _ in range(2)]
