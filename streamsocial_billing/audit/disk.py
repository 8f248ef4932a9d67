"""Compares the tables on disk with their changelogs."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import tables
from faust_exactly_once import read_database
from streamsocial_billing.audit.checks import Problem
from streamsocial_billing.kafka.committed import CommittedLog, Place
from streamsocial_billing.settings import Settings


class Change(NamedTuple):
    """One committed record of a changelog; no value: the key was deleted."""

    offset: int
    key: bytes
    value: bytes | None


@dataclass(frozen=True, slots=True)
class Copy:
    """One database as it lies on disk: the changelog offset it has reached, what it holds."""

    path: Path
    position: int
    content: dict[bytes, bytes]


def tables_on_disk(datadirs: Iterable[Path], settings: Settings) -> list[Problem]:
    """What is wrong with the databases under these data folders; the workers must be stopped.

    Checked for each partition of each table: every database, also that of a former owner, holds exactly the
    fold of the committed changelog up to the offset it says it has reached; where the changelog has records,
    one database has them all. Opens the files read-only, so that it can neither repair nor damage them.
    Raises KafkaProblem where a changelog cannot be read.
    """
    folders = list(datadirs)
    return [problem for table in tables.ALL for problem in _table(table, folders, settings)]


def databases(datadirs: Iterable[Path], table: str, partition: int) -> list[Path]:
    """Where this partition of this table lies under these data folders."""
    paths = [datadir / "v1" / "tables" / f"{table}-{partition}.db" for datadir in datadirs]
    return [path for path in paths if path.is_dir()]


def _table(table: str, datadirs: list[Path], settings: Settings) -> Iterator[Problem]:
    log, topic = CommittedLog(settings), settings.changelog(table)
    ends = log.ends([(topic, partition) for partition in range(log.partitions([topic])[topic])])
    changes: dict[Place, list[Change]] = {place: [] for place in ends}
    for message in log.read(ends):
        place = message.topic() or "", message.partition() or 0
        changes[place].append(Change(message.offset() or 0, message.key() or b"", message.value()))
    for place, (_, end) in ends.items():
        name = f"{table}-{place[1]}"
        copies = []
        for path in databases(datadirs, table, place[1]):
            try:
                copies.append(read_copy(path))
            except Exception as exc:  # rocksdict raises plain Exception
                yield Problem("damaged database", str(path), str(exc))
        yield from copies_problems(name, changes[place], end, copies)


def read_copy(path: Path) -> Copy:
    """The content of one database; raises Exception with RocksDB's words where it cannot be read."""
    position, content = read_database(path)
    return Copy(path, position, content)


def copies_problems(name: str, changes: list[Change], end: int, copies: list[Copy]) -> Iterator[Problem]:
    """What is wrong with the copies of one partition, whose changelog's last stable offset is `end`."""
    for copy in copies:
        if copy.position > end:
            detail = f"it has reached offset {copy.position}, the changelog ends at {end}"
            yield Problem("disk ahead of its changelog", str(copy.path), detail)
            continue
        odd = differing_keys(changes, copy)
        if odd:
            one = odd[0].decode(errors="replace")
            detail = f"{len(odd)} keys differ up to offset {copy.position}, one is {one}"
            yield Problem("disk differs from its changelog", str(copy.path), detail)
    furthest = max((copy.position for copy in copies), default=0)
    if changes and furthest <= changes[-1].offset:
        last = changes[-1].offset
        detail = f"the furthest of {len(copies)} ends before {furthest}, the changelog has {last}"
        yield Problem("no database holds everything", name, detail)


def differing_keys(changes: list[Change], copy: Copy) -> list[bytes]:
    """Keys whose value on disk is not the last one before the offset that the database has reached.

    A key that the disk holds while the changelog has it only later proves nothing: compaction removes an old
    record for the sake of a newer one.
    """
    before = [change for change in changes if change.offset < copy.position]
    fold: dict[bytes, bytes | None] = {change.key: change.value for change in before}
    later = {change.key for change in changes[len(before) :]}
    odd = [key for key, value in fold.items() if copy.content.get(key) != value]
    return sorted(odd + [key for key in copy.content.keys() - fold.keys() if key not in later])
