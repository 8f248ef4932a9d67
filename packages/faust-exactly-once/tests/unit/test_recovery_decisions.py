"""What a task trusts when it opens: its database, its committed offsets."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from faust_exactly_once.database import FORMAT, NO_STATE, Identity, PartitionStore, Reached
from faust_exactly_once.errors import OffsetsMissing
from faust_exactly_once.facts import TP, LogEnds, TopicFacts
from faust_exactly_once.offset_metadata import (
    METADATA_BYTES,
    at_offset,
    changelog_tag,
    is_of_offset,
    make_metadata,
    read_reached,
    read_sources,
    with_reached,
)
from faust_exactly_once.recovery import plan, start_offsets, why_not_a_prefix

NOW_MS = 10_000_000_000
KEPT_MS = 1_000_000
ENDS = LogEnds(start=100, stable=200, high=250)
OURS = Identity("cluster", "topic", 3)


def why(identity: Identity | None, position: int, age_ms: int = 0) -> str | None:
    """The verdict on a database with this identity, position, age."""
    store = PartitionStore(Path("unused"))
    store.identity, store.reached = identity, Reached(position, NOW_MS - age_ms)
    facts = TopicFacts("topic", 8, {"delete.retention.ms": str(KEPT_MS)})
    return why_not_a_prefix(plan("t", ("log", 3), store, "cluster", facts, ENDS), NOW_MS)


@pytest.mark.parametrize(
    ("identity", "position", "age_ms", "reason"),
    [
        (OURS, 150, 0, None),
        (OURS, 100, 0, None),
        (OURS, 150, KEPT_MS * 9 // 10, None),
        (OURS, 200, 100 * KEPT_MS, None),
        (None, 150, 0, NO_STATE),
        (Identity("cluster", "topic", 3, FORMAT + 1), 150, 0, "format 2, this release writes 1"),
        (Identity("other", "topic", 3), 150, 0, "it belongs to cluster other"),
        (Identity("cluster", "older", 3), 150, 0, "the changelog topic was created anew"),
        (Identity("cluster", "topic", 4), 150, 0, "the changelog topic was created anew"),
        (OURS, 201, 0, "it reaches offset 201, the changelog ends at 200"),
        (OURS, 99, 0, "it reaches offset 99, the changelog starts at 100"),
        (
            OURS, 150, KEPT_MS * 9 // 10 + 1000,
            "its last top-up is 901 s old: deletions may be compacted away",
        ),
    ],
)  # fmt: skip
def test_a_database_is_kept_only_where_it_is_proven_a_prefix(
    identity: Identity | None, position: int, age_ms: int, reason: str | None
) -> None:
    """Every other case is rebuilt from empty, with a reason for the log (point 4)."""
    assert reason == why(identity, position, age_ms)


def test_deletions_are_kept_a_day_where_the_topic_does_not_say() -> None:
    """Kafka's default of delete.retention.ms."""
    found = plan("t", ("log", 3), PartitionStore(Path("unused")), "cluster", TopicFacts("topic", 8, {}), ENDS)
    assert 86_400_000 == found.tombstones_kept_ms


A, B = ("a", 0), ("b", 0)
LOGS = {A: ENDS, B: LogEnds(7, 9, 9)}
EMPTY = LogEnds(0, 0, 0)
BOTH = frozenset({"a", "b"})


@pytest.mark.parametrize(
    ("committed", "changelog_empty", "starts"),
    [
        ({A: None, B: None}, True, {A: 100, B: 7}),
        ({A: 150, B: 7}, False, {A: 150, B: 7}),
        ({A: 100, B: 9}, False, {A: 100, B: 9}),
        ({A: 250, B: 9}, True, {A: 250, B: 9}),
    ],
)
@pytest.mark.parametrize("ever", [frozenset[str](), BOTH])
def test_a_task_goes_on_at_its_committed_offsets(
    committed: dict[TP, int | None], changelog_empty: bool, starts: dict[TP, int], ever: frozenset[str]
) -> None:
    """Only a task without offsets, without state starts from the beginning as a whole (point 7)."""
    assert starts == start_offsets(LOGS, committed, changelog_empty, ever)


@pytest.mark.parametrize("changelog_empty", [True, False])
@pytest.mark.parametrize(
    ("ever", "log"), [({"a"}, LOGS[B]), ({"a", "c"}, LOGS[B]), ((), EMPTY), ({"a"}, EMPTY), (BOTH, EMPTY)]
)
def test_a_source_that_the_task_never_read_starts_at_its_log_s_start(
    ever: Iterable[str], log: LogEnds, changelog_empty: bool
) -> None:
    """The metadata of the other offsets do not name it, or it is empty: nothing can be lost or repeated."""
    starts = start_offsets({A: ENDS, B: log}, {A: 150, B: None}, changelog_empty, frozenset(ever))
    assert {A: 150, B: log.start} == starts


@pytest.mark.parametrize("changelog_empty", [True, False])
@pytest.mark.parametrize(
    ("ever", "why"),
    [
        ((), "b may have been read before: its task's other offsets do not say"),
        ({"b"}, "b was read before"),
        (BOTH, "b was read before"),
    ],
)
@pytest.mark.parametrize("log", [LOGS[B], LogEnds(9, 9, 9)], ids=["records", "deleted_records"])
def test_a_source_whose_offset_may_have_been_lost_stops_the_task(
    log: LogEnds, ever: Iterable[str], why: str, changelog_empty: bool
) -> None:
    """Neither skipping nor repeating is chosen for the operator; the other sources wait with it."""
    with pytest.raises(OffsetsMissing, match="kafka-consumer-groups") as refusal:
        start_offsets({A: ENDS, B: log}, {A: 150, B: None}, changelog_empty, frozenset(ever))
    expected = f"no committed offset for b-0, while other sources of its task have one; {why}. Stop all"
    assert str(refusal.value).startswith(expected)


@pytest.mark.parametrize(
    ("committed", "text"),
    [
        (None, "no committed offset for a-0 although its tables have content"),
        (99, "the committed offset 99 of a-0 is outside its log 100..250"),
        (251, "the committed offset 251 of a-0 is outside its log 100..250"),
    ],
)
def test_a_task_whose_offset_cannot_be_trusted_stops(committed: int | None, text: str) -> None:
    """Neither skipping nor repeating is ever chosen for the operator, who is told the command."""
    offsets: dict[Any, int | None] = {A: committed}
    with pytest.raises(OffsetsMissing, match="kafka-consumer-groups") as refusal:
        start_offsets({A: ENDS}, offsets, False)
    assert str(refusal.value).startswith(text)


def test_a_note_is_read_as_it_was_made() -> None:
    """Each offset of a task carries the names of all its sources; what several carry is put together."""
    assert "a,b.c-d_e" == make_metadata({"b.c-d_e", "a"})
    written = [make_metadata({"b.c-d_e", "a"}), "", make_metadata({"z"})]
    assert frozenset({"a", "b.c-d_e", "z"}) == read_sources(written)
    assert frozenset() == read_sources([""])


def test_a_note_that_the_broker_would_refuse_is_left_out() -> None:
    """Then a missing offset is refused in doubt; the commits go on."""
    longest = {"x" * 249 + str(number) for number in range(16)}
    assert METADATA_BYTES >= len(make_metadata(longest)) > 4000
    assert "" == make_metadata(longest | {"y" * 249})


def test_a_note_says_how_far_the_changelogs_reach() -> None:
    """Beside the sources; the furthest of several counts, a changelog made anew is another one."""
    first, second = changelog_tag("c-changelog", "id"), changelog_tag("c-changelog", "another id")
    assert first != second
    note = with_reached(make_metadata(["a", "b"]), {first: 7, second: 3})
    assert {"a", "b"} == read_sources([note])
    assert {first: 9, second: 3} == read_reached(["", note, with_reached("a", {first: 9}), "=x:y,=,=z"])
    assert {} == read_reached(["a,b"])


def test_a_release_that_does_not_know_of_changelogs_keeps_the_sources() -> None:
    """It takes what it does not know for a source that nobody has; what it writes back can be read."""
    note = with_reached(make_metadata(["a", "b"]), {"1234abcd": 7})
    older = frozenset(name for name in note.split(",") if name)
    written = make_metadata(older.union({"a"}))
    assert {"a", "b"} == read_sources([written])
    assert {"1234abcd": 7} == read_reached([written])


def test_a_note_is_of_the_offset_that_it_was_written_with() -> None:
    """What an older release hands on, beside a later offset or another source's, is not."""
    note = at_offset(with_reached(make_metadata(["a", "b"]), {"1234abcd": 7}), "a", 50)
    assert is_of_offset(note, "a", 50)
    assert not is_of_offset(note, "a", 51)
    assert not is_of_offset(note, "b", 50)
    assert not is_of_offset(at_offset(make_metadata(["a", "b"]), "a", 50), "a", 50)  # it says nothing
    assert {"a", "b"} == read_sources([note])
    assert {"1234abcd": 7} == read_reached([note])


def test_a_note_without_room_leaves_the_changelogs_out() -> None:
    """The sources matter more: without them a missing offset is refused."""
    full = "x" * (METADATA_BYTES - 10)
    assert full == with_reached(full, {"1234abcd": 7})
    assert "" == with_reached("", {"1234abcd": 7})  # an older release would think that it knows all sources
