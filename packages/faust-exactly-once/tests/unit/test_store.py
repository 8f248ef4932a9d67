"""A database of committed values.

Operations: write changes (sets, deletions) with a position, close, open again.

Properties:

1. contents are those of a dict; keys come in order; a prefix selects
2. identity, position, contents survive closing
3. the layer's own entry never shows among the items
"""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from unittest.mock import patch

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from faust_exactly_once import database
from faust_exactly_once.database import NO_STATE, Identity, PartitionStore
from faust_exactly_once.errors import StoreFailed, StoreInUse
from faust_exactly_once.task_stores import TaskStores

IDENTITY = Identity("cluster", "topic", 3)
KEYS = st.sampled_from([b"", b"a", b"a/1", b"a/2", b"b", b"__faust", b"\xff", b"zz"])
VALUES = st.none() | st.binary(max_size=5)
STEPS = st.lists(st.just(None) | st.dictionaries(KEYS, VALUES, max_size=4), max_size=12)


@contextmanager
def opened(path: Path) -> Iterator[PartitionStore]:
    store = PartitionStore(path)
    store.open()
    try:
        yield store
    finally:
        store.close()


@given(STEPS, KEYS, st.booleans())
@settings(max_examples=25, deadline=None)
def test_contents_are_those_of_a_dict_across_openings(
    steps: list[dict[bytes, bytes | None] | None], prefix: bytes, in_memory: bool
) -> None:
    """What was applied is there, nothing else, however often it is opened (properties 1 to 3)."""
    model: dict[bytes, bytes] = {}
    fewer = patch.object(database, "MOST_KEPT", 3)  # than there are keys: what is in memory may grow beyond
    with TemporaryDirectory() as folder, fewer:
        store = PartitionStore(Path(folder) / "t.db")
        store.open()
        store.adopt(IDENTITY)
        for position, step in enumerate(steps, 1):
            if step is None:
                store.close()
                store = PartitionStore(Path(folder) / "t.db")
                assert store.open() is None
                if in_memory:
                    store.keep_in_memory()
            else:
                store.apply(step, position)
                model.update({k: v for k, v in step.items() if v is not None})
                model = {k: v for k, v in model.items() if step.get(k, v) is not None}
                assert position == store.reached.position
            assert IDENTITY == store.identity
            assert sorted(model.items()) == list(store.items())
            assert [(k, v) for k, v in sorted(model.items()) if k.startswith(prefix)] == list(
                store.items(prefix)
            )
            assert [model.get(key) for key in (prefix, b"never")] == [store.get(prefix), store.get(b"never")]
        store.close()


def test_a_new_database_is_made_once(tmp_path: Path) -> None:
    """What has just been made is empty: it is not made again. One that was written to, or found, is."""
    with opened(tmp_path / "t.db") as store:
        made = (store.path / "IDENTITY").read_text()
        store.wipe()
        assert made == (store.path / "IDENTITY").read_text()
        store.adopt(IDENTITY)
        store.apply({b"a": b"1"}, 1)
        store.wipe()
        assert made != (store.path / "IDENTITY").read_text()
        assert ([], None, 0) == (list(store.items()), store.identity, store.reached.position)
        made = (store.path / "IDENTITY").read_text()
    with opened(tmp_path / "t.db") as store:  # found without an identity: nobody knows what is in it
        store.wipe()
        assert made != (store.path / "IDENTITY").read_text()


def filled(path: Path) -> None:
    """A closed database with a flushed file."""
    with opened(path) as store:
        store.adopt(IDENTITY)
        store.apply({b"k%d" % i: b"v%d" % i * 50 for i in range(2000)}, 7)
        store._live().flush()  # noqa: SLF001 - so that there is an sst file to damage


def test_a_damaged_block_is_not_taken_for_the_end(tmp_path: Path) -> None:
    """RocksDB's iterator just stops there: a walk would never come to what lies behind, a sum lack it."""
    path = tmp_path / "t.db"
    filled(path)
    file = max(path.glob("*.sst"), key=lambda file: file.stat().st_size)
    content = bytearray(file.read_bytes())
    content[len(content) // 3 : len(content) // 2] = b"\xde" * (len(content) // 2 - len(content) // 3)
    file.write_bytes(content)
    with opened(path) as store:
        view = TaskStores({"t": store}).view(["t"])
        with pytest.raises(StoreFailed, match="Corruption"):
            store.items_after(b"k", 2000)
        with pytest.raises(StoreFailed, match="Corruption"):
            view.take("t", 2000)
        with pytest.raises(StoreFailed, match="Corruption"):
            list(store.items())
        view.close()
    assert "damaged files (found while running)" == PartitionStore(path).open()


def truncated(content: bytes) -> bytes:
    return content[: len(content) // 2]


def garbage(content: bytes) -> bytes:
    return b"\xde\xad\xbe\xef" * 20


@pytest.mark.parametrize("damage", [truncated, garbage, None])
@pytest.mark.parametrize("files", ["CURRENT", "MANIFEST-*", "*.sst"])
@pytest.mark.parametrize("folder", ["data", "blocks"])
def test_damaged_files_are_replaced_by_an_empty_database(
    tmp_path: Path, folder: str, files: str, damage: object
) -> None:
    """Whatever is broken or missing, the worker starts, from empty, with a reason for the log."""
    path = tmp_path / folder / "t.db"
    filled(path)
    for file in path.glob(files):
        if callable(damage):
            file.write_bytes(damage(file.read_bytes()))
        else:
            file.unlink()
    store = PartitionStore(path)
    reason = store.open()
    assert [] == list(store.items())
    assert store.identity is None
    assert 0 == store.reached.position
    assert reason is None or reason.startswith("damaged files (")
    assert reason is not None or files == "MANIFEST-*", "a shortened history is seen by the missing identity"
    store.close()


def test_a_damaged_block_found_while_reading_rebuilds_at_the_next_opening(tmp_path: Path) -> None:
    """Opening does not read data blocks: a read that fails leaves word, so that no restart repeats it."""
    path = tmp_path / "t.db"
    filled(path)
    for file in path.glob("*.sst"):
        content = bytearray(file.read_bytes())
        third = len(content) // 3
        content[third : third + 40] = bytes(40)
        file.write_bytes(content)
    with opened(path) as store, pytest.raises(StoreFailed, match="Corruption"):
        for i in range(2000):
            store.get(b"k%d" % i)
    store = PartitionStore(path)
    assert "damaged files (found while running)" == store.open()
    assert [] == list(store.items())
    store.adopt(IDENTITY)
    store.close()
    assert PartitionStore(path).open() is None


def test_a_database_of_an_unknown_format_is_rebuilt(tmp_path: Path) -> None:
    """What cannot be understood is not trusted."""
    with opened(tmp_path / "t.db") as store:
        store.apply({b"k": b"v"}, 1)
    store = PartitionStore(tmp_path / "t.db")
    assert "unknown format" == store.open()
    assert [] == list(store.items())
    store.close()


def test_a_new_database_says_so(tmp_path: Path) -> None:
    """The first start of a worker is no damage."""
    store = PartitionStore(tmp_path / "new" / "t.db")
    assert NO_STATE == store.open()
    store.close()


def test_a_database_in_use_is_left_alone(tmp_path: Path) -> None:
    """Two workers on one folder: the second waits, the first loses nothing; also across processes."""
    path = tmp_path / "t.db"
    with opened(path) as holder:
        holder.adopt(IDENTITY)
        holder.apply({b"k": b"v"}, 1)
        with pytest.raises(StoreInUse, match="--datadir"):
            PartitionStore(path).open()
        code = f"from {PartitionStore.__module__} import *; PartitionStore(Path({str(path)!r})).open()"
        other = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
        assert "StoreInUse" in other.stderr
        assert b"v" == holder.get(b"k")
    with opened(path) as store:
        assert [(b"k", b"v")] == list(store.items())


@pytest.mark.parametrize("place", ["file", "file/below"])
def test_a_folder_that_cannot_be_used_is_left_alone(tmp_path: Path, place: str) -> None:
    """What is in the way is named, never deleted."""
    (tmp_path / "file").write_text("precious")
    with pytest.raises(OSError, match="file"):
        PartitionStore(tmp_path / place).open()
    assert "precious" == (tmp_path / "file").read_text()


def test_nothing_is_read_or_written_after_closing(tmp_path: Path) -> None:
    """An old epoch cannot touch the files of the next one."""
    with opened(tmp_path / "t.db") as store:
        stores = TaskStores({"t": store})
        stores.apply({"t": {b"k": b"v"}}, {"t": 1})
        stores.close()
    with pytest.raises(StoreFailed, match="stopped"):
        stores.apply({"t": {b"k": b"w"}}, {"t": 2})
    with pytest.raises(StoreFailed, match="closed"):
        store.get(b"k")


def test_a_write_without_its_changelog_offset_is_refused(tmp_path: Path) -> None:
    """No value gets into a database that could not be topped up from a known offset."""
    with opened(tmp_path / "t.db") as store:
        with pytest.raises(StoreFailed):
            TaskStores({"t": store}).apply({"t": {b"k": b"v"}}, {})
        assert [] == list(store.items())
