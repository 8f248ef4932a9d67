"""Writes what a run found into Kafka: repairs to `gateway-events`, breaks to `reconciliation-breaks`.

`reconciliation-breaks` is compacted: key = the break's id, an open break's record stays, one that is gone
gets a tombstone. The key `run` holds what the last run counted. Only what changed is written, in
transactions of CHUNK records: each record says the same however often it is written.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Collection, Iterator
from typing import Any, Final

import orjson
from confluent_kafka import Message

from streamsocial_billing.domain.events import GATEWAYS
from streamsocial_billing.kafka.committed import CommittedLog, KafkaProblem, Place
from streamsocial_billing.kafka.transactions import TransactionalWriter, place_of
from streamsocial_billing.settings import BREAKS, GATEWAY_EVENTS, Settings

RUN_KEY: Final = "run"
PUBLISH_MOST: Final = 10_000
"""Breaks on the topic, the oldest first; the record of the run counts all."""
REPAIR_MOST: Final = 10_000
"""Breaks that one run repairs, the rest is left to the next one."""
CHUNK: Final = 1000
VISIBLE_WITHIN_S: Final = 10.0
ASK_AGAIN_S: Final = 0.05

Record = tuple[str, bytes, bytes | None]
"""Topic, key, value."""


def publish(
    settings: Settings, db: sqlite3.Connection, run: dict[str, Any], checked: Collection[str]
) -> int:
    """Append what is new, each record confirmed; returns how many repairs were appended.

    `checked` are the gateways of this run: the breaks that an earlier run found at others stay.
    Raises KafkaProblem: what of it is there is harmless, the next run appends the rest.
    """
    repairs = list(_repairs(settings, db))
    changes = list(_changes(settings, db, run, checked))
    if repairs or changes:
        _append(settings, [*repairs, *changes])
    return len(repairs)


def _repairs(settings: Settings, db: sqlite3.Connection) -> Iterator[Record]:
    """The repairs that no earlier run has appended: an event id on the topic stands for what it repairs."""
    topic = settings.topic(GATEWAY_EVENTS)
    found = db.execute(
        "SELECT event FROM breaks WHERE event IS NOT NULL ORDER BY since, id LIMIT ?", (REPAIR_MOST,)
    ).fetchall()
    wanted = {event["event_id"]: event for (text,) in found for event in orjson.loads(text)}
    if not wanted:
        return
    for value in _values(settings, topic):
        if value is not None and b'"rec_brk_' in value:
            wanted.pop(str(_object(value).get("event_id")), None)
    for event in wanted.values():
        yield topic, event["user_id"].encode(), orjson.dumps(event)


def _changes(
    settings: Settings, db: sqlite3.Connection, run: dict[str, Any], checked: Collection[str]
) -> Iterator[Record]:
    topic = settings.topic(BREAKS)
    there: dict[bytes, bytes] = {}
    for message in _messages(settings, topic):
        key, value = message.key() or b"", message.value()
        if value is None:
            there.pop(key, None)
        else:
            there[key] = value
    wanted = {RUN_KEY.encode(): orjson.dumps(run)}
    for name, body in db.execute(
        "SELECT id, body FROM breaks WHERE open ORDER BY since, id LIMIT ?", (PUBLISH_MOST,)
    ):
        wanted[name.encode()] = body.encode()
    for key, new in wanted.items():
        if there.get(key) != new:
            yield topic, key, new
    unchecked = GATEWAYS - set(checked)
    for key in there.keys() - wanted.keys():
        if _object(there[key]).get("gateway") not in unchecked:
            yield topic, key, None


def _values(settings: Settings, topic: str) -> Iterator[bytes | None]:
    return (message.value() for message in _messages(settings, topic))


def _messages(settings: Settings, topic: str) -> Iterator[Message]:
    log = CommittedLog(settings)
    return log.read(log.ends([(topic, part) for part in range(log.partitions([topic])[topic])]))


def _object(value: bytes) -> dict[str, Any]:
    try:
        data = orjson.loads(value)
    except orjson.JSONDecodeError:
        return {}
    return data if isinstance(data, dict) else {}


def _append(settings: Settings, records: list[Record]) -> None:
    """Chunk by chunk, each in a transaction; one id, so that a run that died is fenced by the next."""
    writer = TransactionalWriter(settings, f"{settings.app_id}-reconcile")
    written: dict[Place, int] = {}
    try:
        for start in range(0, len(records), CHUNK):
            chunk = records[start : start + CHUNK]
            sending = [{"topic": topic, "key": key, "value": value} for topic, key, value in chunk]
            for place, offset in filter(None, map(place_of, writer.append(sending))):
                written[place] = offset
    except KafkaProblem as error:
        raise KafkaProblem(f"not all was written, run reconcile again: {error}") from None
    finally:
        writer.close()
    _wait_visible(settings, written)


def _wait_visible(settings: Settings, written: dict[Place, int]) -> None:
    """Return when readers see it: the broker answers a commit before it has written the end markers."""
    log, until = CommittedLog(settings), time.monotonic() + VISIBLE_WITHIN_S
    while time.monotonic() < until:
        ends = log.ends(written)
        if all(ends[place][1] > offset for place, offset in written.items()):
            return
        time.sleep(ASK_AGAIN_S)
