"""Writes what is committed on both topics into files that DuckDB, or any other tool, reads."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import orjson
from confluent_kafka import Message

from lab.analytics.movements import METRICS, RESULTS
from streamsocial_billing.kafka.committed import CommittedLog
from streamsocial_billing.settings import Settings


def export(settings: Settings, folder: Path) -> dict[str, int]:
    """Write `charge-results.jsonl`, `payment-metrics.jsonl`; how many records each has.

    One object a line: `partition`, `offset`, `value`. Everything that was committed when it began; each file
    is there whole or as it was before. Raises KafkaProblem.
    """
    folder.mkdir(parents=True, exist_ok=True)
    log, counts = CommittedLog(settings), {}
    for name in (RESULTS, METRICS):
        topic = settings.topic(name)
        ends = log.ends((topic, number) for number in range(log.partitions([topic])[topic]))
        counts[name] = _write(folder / f"{name}.jsonl", log.read(ends))
    return counts


def _write(file: Path, messages: Iterator[Message]) -> int:
    count, unfinished = 0, file.with_suffix(".part")
    with unfinished.open("wb") as out:
        for message in messages:
            place = {"partition": message.partition(), "offset": message.offset()}
            out.write(orjson.dumps(place | {"value": orjson.Fragment(message.value() or b"null")}) + b"\n")
            count += 1
    unfinished.replace(file)
    return count
