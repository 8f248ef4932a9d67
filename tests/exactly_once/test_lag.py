"""The consumer lag that an operator sees says the truth."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from confluent_kafka import Producer
from support.system import Payments, System

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
        transact(system, places, ending)
        log = CommittedLog(settings)
        ends = marked_ends(log, places)
        deadline = time.monotonic() + 60
        while (lag := log.lag(settings.app_id, ends)) and time.monotonic() < deadline:
            pass
        assert {} == lag


def marked_ends(log: CommittedLog, places: list[tuple[str, int]]) -> dict[tuple[str, int], tuple[int, int]]:
    """Where the logs end behind the markers of `transact`: EndTxn is answered before these are written."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        ends = log.ends(places)
        if sum(end for _, end in ends.values()) >= 50 + 2 * len(places):
            return ends
    raise AssertionError(f"no end marker on each of {places} within 60 s: {ends}")


def transact(system: System, places: list[tuple[str, int]], ending: str) -> None:
    """One transaction with a record on each place: a trigger for nobody, on `payments` a dead letter."""
    name = f"{system.settings.app_id}-test"
    producer = Producer({**system.settings.client_config(), "transactional.id": name})
    producer.init_transactions(10)
    producer.begin_transaction()
    for topic, partition in places:
        producer.produce(topic, RetryTrigger("nobody", "none").to_bytes(), key=b"nobody", partition=partition)
    producer.flush(10)
    if ending == "commit":
        producer.commit_transaction(10)
    else:
        producer.abort_transaction(10)
    producer.close()
