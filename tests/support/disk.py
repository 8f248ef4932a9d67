"""Compares RocksDB with the committed changelog; for stopped workers."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from streamsocial_billing.committed import CommittedLog
from streamsocial_billing.exactly_once.store import PartitionStore
from streamsocial_billing.settings import Settings


def tables_on_disk(datadirs: Iterable[Path], settings: Settings) -> list[str]:
    """Every database must hold the fold of its changelog up to the offset it says it has reached, one of
    each partition's databases must have reached the end."""
    problems: list[str] = []
    furthest: dict[tuple[str, int], int] = {}
    for datadir in datadirs:
        for path in sorted(datadir.rglob("*.db")):
            if not path.is_dir():
                continue
            table, _, number = path.name.removesuffix(".db").rpartition("-")
            partition = int(number)
            store = PartitionStore(path)
            assert store.open() is None
            reached = store.reached.position
            expected = fold(settings, table, partition, reached)
            got = dict(store.items())
            store.close()
            if expected != got:
                odd = [k for k in expected.keys() | got.keys() if expected.get(k) != got.get(k)]
                problems.append(f"{path}: {len(odd)} keys differ from the changelog up to {reached}: {odd[:3]}")
            furthest[table, partition] = max(furthest.get((table, partition), 0), reached)
    for (table, partition), reached in furthest.items():
        whole = fold(settings, table, partition, None)
        if whole != fold(settings, table, partition, reached):
            problems.append(f"{table}-{partition}: no database has reached the end, only {reached}")
    if not furthest:
        problems.append("no database at all")
    return problems


def fold(settings: Settings, table: str, partition: int, until: int | None) -> dict[bytes, bytes]:
    """The last committed value of each key before offset `until` (None: all)."""
    log = CommittedLog(settings)
    place = (settings.changelog(table), partition)
    start, end = log.ends([place])[place]
    content: dict[bytes, bytes] = {}
    for message in log.read({place: (start, end if until is None else min(until, end))}):
        key, value = message.key() or b"", message.value()
        if value is None:
            content.pop(key, None)
        else:
            content[key] = value
    return content
