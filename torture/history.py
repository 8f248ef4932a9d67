"""Reads what a run left behind into plain data, for the checker."""

from __future__ import annotations

import base64
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Final

import orjson

import tables
from faust_exactly_once.cluster import Cluster
from faust_exactly_once.facts import TP
from streamsocial_billing.audit.books import Books
from streamsocial_billing.audit.checks import Problem
from streamsocial_billing.audit.disk import tables_on_disk
from streamsocial_billing.audit.readers import KafkaSide, read_ledger
from streamsocial_billing.kafka.committed import CommittedLog
from streamsocial_billing.settings import DEAD_LETTERS, METRICS, PAYMENTS, RESULTS, SOURCES, Settings
from torture.checker import History, Sending
from torture.segments import OFFSETS, Place, Written, log_end, transactional_records

PAGE: Final = 1000
"""Charges asked of the gateway at a time."""


def read_history(
    settings: Settings, *, log: Mapping[Place, Path], run: Path, datadirs: Iterable[Path],
    peak_bytes: dict[str, int],
) -> History:  # fmt: skip
    """Everything the checker asks about; broker and gateway run still, the workers do not.

    Args:
        settings: those of the run.
        log: each partition's folder on the disk of its leader.
        run: the run's folder, with `intake.jsonl`.
        datadirs: the workers' data folders.
        peak_bytes: per worker its largest resident set.
    """
    books = Books()
    kafka = KafkaSide(settings, books)
    kafka.read_on()
    books.ledger, books.refunds = read_ledger(settings.simulator_url, PAGE)
    lag, unstable, log_ends = _tails(settings)
    short = _not_on_disk(settings, log)
    return History(
        group=settings.app_id, books=books, sendings=read_intake(run / "intake.jsonl"),
        written=_written(settings, log), appended=_appended(settings), log_ends=log_ends,
        on_disk=[*tables_on_disk(datadirs, settings), *short], lag=lag, unstable=unstable,
        peak_bytes=peak_bytes,
    )  # fmt: skip


def read_intake(path: Path) -> list[Sending]:
    """The intake's transactions; one whose end was never written is unknown."""
    values: dict[int, bytes] = {}
    sendings: list[Sending] = []
    if not path.exists():
        return sendings  # the run ended before anything was sent
    with path.open("rb") as lines:
        for line in lines:
            if not line.endswith(b"\n"):
                break  # the intake was killed amid this line: it had sent nothing of it
            told = orjson.loads(line)
            if "outcome" in told:
                first, last = told["n"]
                sendings.append(Sending(_taken(values, first, last), told["outcome"]))
            else:
                values[told["n"]] = base64.b64decode(told["value_b64"])
    sendings += [Sending((value,), "unknown") for value in values.values()]
    return sendings


def _taken(values: dict[int, bytes], first: int, last: int) -> tuple[bytes, ...]:
    return tuple(values.pop(n) for n in range(first, last + 1) if n in values)


def _written(settings: Settings, log: Mapping[Place, Path]) -> dict[str, list[Written]]:
    topics = {name: settings.topic(name) for name in (RESULTS, METRICS, DEAD_LETTERS)}
    topics |= {table: settings.changelog(table) for table in tables.ALL}
    written = {name: transactional_records(log, topic) for name, topic in topics.items()}
    written["offsets"] = transactional_records(log, OFFSETS)
    written[METRICS] = [one for one in written[METRICS] if not _is_requested(one)]
    return written


def _not_on_disk(settings: Settings, log: Mapping[Place, Path]) -> list[Problem]:
    """What the brokers say is in the log, but is not on the disk that is judged: nothing, always."""
    ends = Cluster(settings.client_config(), 10).log_ends(log)
    return [
        Problem("segments are incomplete", f"{place[0]}-{place[1]}", f"end at {there}, not at {end.high}")
        for place, end in ends.items()
        if (there := log_end(log[place])) < end.high
    ]


def _is_requested(metric: Written) -> bool:
    told: Any = orjson.loads(metric.value or b"{}")
    return bool(told.get("status") == "requested")  # the intake's own


def _appended(settings: Settings) -> Counter[bytes]:
    reader = CommittedLog(settings)
    topic = settings.topic(PAYMENTS)
    ends = reader.ends([(topic, p) for p in range(reader.partitions([topic])[topic])])
    return Counter(message.value() or b"" for message in reader.read(ends))


def _tails(settings: Settings) -> tuple[list[Any], list[Any], dict[TP, int]]:
    """Lag of the group per source partition, open transactions per partition of every topic, log ends."""
    reader, cluster = CommittedLog(settings), Cluster(settings.client_config(), 10)
    sources = [settings.topic(name) for name in SOURCES]
    others = [settings.topic(name) for name in (RESULTS, METRICS, DEAD_LETTERS)]
    counts = reader.partitions([*sources, *others, *(settings.changelog(table) for table in tables.ALL)])
    places: list[TP] = [(topic, p) for topic, count in counts.items() for p in range(count)]
    behind = reader.lag(settings.app_id, reader.ends([tp for tp in places if tp[0] in sources]))
    ends = cluster.log_ends(places)
    lag = [(*place, count) for place, count in behind.items()]
    unstable = [(*tp, end.high - end.stable) for tp, end in ends.items() if end.high != end.stable]
    return lag, unstable, {tp: end.high for tp, end in ends.items()}
