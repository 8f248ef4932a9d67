"""The consumer lag that an operator sees says the truth."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from confluent_kafka import Producer
from support.system import Payments, System
from support.topics import wait_settled

from streamsocial_billing.domain.events import RetryTrigger
from streamsocial_billing.kafka.committed import CommittedLog
from streamsocial_billing.settings import PAYMENTS, RETRY


@pytest.mark.parametrize("ending", ["commit", "abort"])
def test_the_lag_is_zero_when_all_is_handled_although_the_logs_end_in_markers(
    ending: str, broker: str, tmp_path: Path, unique_name: str
) -> None:
    """Committed offset = last stable offset on both sources, whatever the last transaction came to."""
    with System(broker, tmp_path, unique_name, partitions=2) as system:
        system.start()
        system.submit(Payments(seed=1).take(50))
        system.wait_answered()
        settings = system.settings
        places = [(settings.topic(t), p) for t in (PAYMENTS, RETRY) for p in range(2)]
        wait_settled(settings, *(settings.topic(t) for t in (PAYMENTS, RETRY)))
        log = CommittedLog(settings)
        before = log.ends(places)
        transact(system, places, ending)
        ends = marked_ends(log, before)
        deadline = time.monotonic() + 60
        while (lag := log.lag(settings.app_id, ends)) and time.monotonic() < deadline:
            pass
        assert {} == lag


Ends = dict[tuple[str, int], tuple[int, int]]


def marked_ends(log: CommittedLog, before: Ends) -> Ends:
    """Where the logs end behind the markers of `transact`: EndTxn is answered before these are written."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        ends = log.ends(before)
        if all(ends[place][1] >= end + 2 for place, (_, end) in before.items()):
            return ends
    raise AssertionError(f"no end marker on each within 60 s: {before}, {ends}")


def transact(system: System, places: list[tuple[str, int]], ending: str) -> None:
    """One transaction with a record on each place: a trigger for nobody, on `payments` a dead letter."""
    name = f"{system.settings.app_id}-test"
    producer = Producer({**system.settings.client_config(), "transactional.id": name})
    producer.init_transactions(60)
    producer.begin_transaction()
    for topic, partition in places:
        producer.produce(topic, RetryTrigger("nobody", "none").to_bytes(), key=b"nobody", partition=partition)
    assert 0 == producer.flush(60)
    if ending == "commit":
        producer.commit_transaction(60)
    else:
        producer.abort_transaction(60)
    producer.close()
