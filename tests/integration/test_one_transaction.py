"""What the broker's own log says: everything that an event did is in one transaction with its offset."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path
from typing import NamedTuple

import orjson
import pytest
from confluent_kafka.admin import NewTopic
from support.system import CALM, Payments, Stream, System, payment
from support.topics import committed_now, wait_settled

from faust_exactly_once.cluster import Cluster
from streamsocial_billing.domain.events import PaymentEvent
from streamsocial_billing.settings import METRICS, PAYMENTS, RESULTS, Settings
from torture.segments import OFFSETS, Written, committed_offset, log_folder, transactional_records

PRODUCTS = ("subscription", "upgrade", "gift")
METRIC_PARTITIONS = 3

Moves = dict[tuple[int, str | None], list[tuple[int, Written]]]
"""Per partition of `payments`, by what became of them: offsets, each with its record, in the log's order."""


class Done(NamedTuple):
    """What one event did, in the transaction of its result; None: not in that transaction."""

    result: Written
    metric: Written | None
    entry: Written | None
    state: Written | None
    offset: Written | None


def make_odd_metrics_topic(broker: str, name: str) -> None:
    """Metrics have another key than payments; here another partition count as well."""
    Cluster({"bootstrap.servers": broker}, 60).create([
        NewTopic(f"{name}-{METRICS}", METRIC_PARTITIONS, 1, config={"retention.ms": "-1"})
    ])  # fmt: skip


def a_few(count: int) -> list[PaymentEvent]:
    """Payments of different products, so that their metrics lie in different partitions."""
    return [payment(f"user-{n % 30}", f"pay-{n}", product=PRODUCTS[n % 3]) for n in range(count)]


def segments(broker: str) -> Path:
    """The broker's log; skips the rest of the test where it is on another machine."""
    folder = log_folder(broker)
    if folder is None:
        pytest.skip(f"NOT CHECKED in the segments: the log of the broker at {broker} is not on this machine")
    return folder


def all_ended(settings: Settings) -> None:
    """Return once the end of each transaction stands in every log: Kafka answers a commit before that."""
    topics = [settings.topic(name) for name in (RESULTS, METRICS)]
    wait_settled(settings, *topics, *(settings.changelog(name) for name in ("payments", "charges")))


def all_done(log: Path, settings: Settings) -> list[Done]:
    """Per result in the log, whatever became of it, the records of its event in its own transaction."""
    results = transactional_records(log, settings.topic(RESULTS))
    metrics = {
        (orjson.loads(one.value or b"")["payment_id"], one.end): one
        for one in transactional_records(log, settings.topic(METRICS))
        if orjson.loads(one.value or b"")["status"] != "requested"
    }
    changes = {
        (topic, one.place[1], one.key.decode(), one.end): one
        for topic in ("payments", "charges")
        for one in transactional_records(log, settings.changelog(topic))
    }
    moved = moves(log, settings)
    done = []
    for result in results:
        told = orjson.loads(result.value or b"")
        user, name, source = told["user_id"], told["payment_id"], told["source"]
        partition, end = source["partition"], result.end
        past = [one for offset, one in moved[partition, result.outcome] if offset > source["offset"]]
        done.append(Done(
            result, metrics.get((name, end)), changes.get(("payments", partition, f"{user}/{name}", end)),
            changes.get(("charges", partition, user, end)), past[0] if past and past[0].end == end else None,
        ))  # fmt: skip
    return done


def moves(log: Path, settings: Settings) -> Moves:
    """The offsets of the group on `payments`."""
    found: Moves = defaultdict(list)
    for record in transactional_records(log, OFFSETS):
        said = committed_offset(record)
        if said is not None and said[:2] == (settings.app_id, settings.topic(PAYMENTS)):
            found[said[2], record.outcome].append((said[3], record))
    return found


def test_all_that_an_event_did_lies_before_the_same_commit_marker(
    broker: str, tmp_path: Path, unique_name: str
) -> None:
    """Result, metric (another key, another partition count), changelog records, offset: one transaction."""
    make_odd_metrics_topic(broker, unique_name)
    with System(broker, tmp_path, unique_name, workers=2, **CALM) as system:
        events = a_few(300)
        system.start()
        for first in range(0, 300, 50):
            system.submit(events[first : first + 50])
        system.check()
        all_ended(system.settings)
        done = all_done(segments(broker), system.settings)
    assert 300 == len(done)
    assert [] == [one for one in done if None in one or one.result.outcome != "commit"]
    assert 4 == len({one.result.place[1] for one in done})
    assert METRIC_PARTITIONS == len({one.metric.place[1] for one in done if one.metric is not None})


def test_what_a_killed_worker_had_not_committed_is_aborted_as_a_whole(
    broker: str, tmp_path: Path, unique_name: str
) -> None:
    """Killed before the commit: nobody sees any of it; its next task epoch aborts all, does it again."""
    make_odd_metrics_topic(broker, unique_name)
    with System(broker, tmp_path, unique_name, partitions=1, **CALM) as system:
        system.gateway.faults(latency_ms=20)
        system.worker.start(crash_at=("before_commit", 6))
        system.worker.wait_ready()
        with Stream(system, Payments(seed=9, resent=0), chunk=25, ahead=100, most=2000):
            system.worker.wait_killed()
        visible = committed_now(system.settings, RESULTS)
        left = [one for one in all_done(segments(broker), system.settings) if one.result.outcome is None]
        system.worker.start()
        system.check()
        all_ended(system.settings)
        after = {one.result.offset: one for one in all_done(segments(broker), system.settings)}
    assert [] == [one for one in left if None in one]
    seen = {orjson.loads(one.value() or b"")["payment_id"] for one in visible}
    assert set() == seen & {orjson.loads(one.result.value or b"")["payment_id"] for one in left}
    assert ["abort"] * len(left) == [after[one.result.offset].result.outcome for one in left]
    assert [] == [one for one in after.values() if None in one]
    assert left
