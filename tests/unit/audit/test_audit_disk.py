"""What the comparison of a database with its changelog promises."""

from __future__ import annotations

from pathlib import Path

import pytest

from faust_exactly_once.database import Identity, PartitionStore
from streamsocial_billing.audit.disk import Change, Copy, copies_problems, databases, read_copy

CHANGES = [Change(0, b"a", b"1"), Change(1, b"b", b"1"), Change(3, b"a", b"2"), Change(4, b"b", None)]
END = 6
"""Two control records stand at 2 and 5."""


def kinds(*copies: Copy, changes: list[Change] = CHANGES) -> list[str]:
    """The kinds of problems of these copies."""
    return [problem.kind for problem in copies_problems("charges-0", changes, END, list(copies))]


def copy(position: int, **content: bytes) -> Copy:
    """A database that has reached this offset."""
    return Copy(Path("charges-0.db"), position, {key.encode(): value for key, value in content.items()})


def test_the_fold_of_everything_is_right() -> None:
    """The last value of each key counts, a deleted key is gone, the end mark need not be reached."""
    assert [] == kinds(copy(5, a=b"2"))
    assert [] == kinds(copy(6, a=b"2"))


def test_a_former_owners_prefix_is_right_beside_a_whole_copy() -> None:
    """A database may end early, if it holds the fold up to there and another one has everything."""
    assert [] == kinds(copy(2, a=b"1", b=b"1"), copy(6, a=b"2"))


@pytest.mark.parametrize(
    "wrong",
    [
        pytest.param(copy(5, a=b"1"), id="old value"),
        pytest.param(copy(5), id="lost key"),
        pytest.param(copy(5, a=b"2", b=b"1"), id="deleted key"),
        pytest.param(copy(5, a=b"2", c=b"1"), id="foreign key"),
        pytest.param(copy(2, a=b"2", b=b"1"), id="value from beyond its offset"),
    ],
)
def test_any_other_content_is_a_problem(wrong: Copy) -> None:
    """What is not the fold up to the database's own offset is named, whoever owned it."""
    assert ["disk differs from its changelog"] == kinds(wrong, copy(6, a=b"2"))


def test_a_database_ahead_of_the_committed_changelog_is_a_problem() -> None:
    """Nothing may be on disk that was not committed."""
    assert ["disk ahead of its changelog"] == kinds(copy(7, a=b"3"))


@pytest.mark.parametrize("copies", [[], [copy(4, a=b"2", b=b"1")]])
def test_someone_must_hold_everything(copies: list[Copy]) -> None:
    """Prefixes alone, or nothing at all, are a problem as soon as the changelog has records."""
    assert ["no database holds everything"] == kinds(*copies)


def test_an_unused_partition_needs_no_database() -> None:
    """Without records there is nothing to hold."""
    assert [] == kinds(changes=[])


def test_compaction_may_have_removed_an_old_value() -> None:
    """A prefix with a key of which the changelog keeps only a later record cannot be blamed."""
    compacted = CHANGES[1:]
    assert [] == kinds(copy(2, a=b"1", b=b"1"), copy(6, a=b"2"), changes=compacted)


def test_a_database_is_read_as_the_store_wrote_it(tmp_path: Path) -> None:
    """Content with offset come from the store's own files; reading leaves them as they are."""
    path = tmp_path / "v1" / "tables" / "charges-3.db"
    store = PartitionStore(path)
    store.open()
    store.adopt(Identity("cluster", "topic", 3))
    store.apply({b"user-1": b"{}", b"user-2": b"{}"}, 7)
    store.apply({b"user-2": None}, 9)
    store.close()
    assert [path] == databases([tmp_path, tmp_path / "nobody"], "charges", 3)
    assert Copy(path, 9, {b"user-1": b"{}"}) == read_copy(path) == read_copy(path)


def test_a_damaged_database_stays_as_it_is(tmp_path: Path) -> None:
    """What cannot be read raises, it is not repaired."""
    (tmp_path / "CURRENT").write_text("nonsense")
    with pytest.raises(Exception, match="Corruption|CURRENT|Invalid"):
        read_copy(tmp_path)
    assert "nonsense" == (tmp_path / "CURRENT").read_text()
