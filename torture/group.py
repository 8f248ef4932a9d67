"""The fault in which the consumer group's committed offsets expire."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

from confluent_kafka import ConsumerGroupTopicPartitions, KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient

import tables
from faust_exactly_once.cluster import Cluster
from faust_exactly_once.facts import TP
from streamsocial_billing.kafka.committed import CommittedLog
from streamsocial_billing.settings import RESULTS, SOURCES
from torture.asking import again
from torture.system import APP_ID, PARTITIONS
from torture.worker import ADDED_TOPIC

if TYPE_CHECKING:
    from torture.system import System

STOPPED: Final = r"task {partition} is stopped: no committed offset for .* --reset-offsets"
STOPPED_WITHIN_S: Final = 120.0
"""By the number of brokers: three of them share the machine with the workers."""
EMPTY_WITHIN_S: Final = 60.0


class FaultFailed(Exception):
    """Raised when the product did not do under a fault what its contract says."""


def expire_offsets(system: System, length_s: float) -> dict[str, Any]:
    """Stop all workers, delete the group; what starts now must stop its tasks; then put the offsets back."""
    _stop_all(system)
    cluster = system.cluster(20.0)
    found = again(lambda: cluster.committed(APP_ID, sources(system)), EMPTY_WITHIN_S)
    before = again(lambda: _ends_of_results(cluster, system), EMPTY_WITHIN_S)
    with_state = again(lambda: _partitions_with_state(cluster, system), EMPTY_WITHIN_S)
    # a task without state begins anew, rightly: its offsets of before would have it do so once more
    kept = {tp: at for tp, at in found.items() if at is not None and tp[1] in with_state}
    again(lambda: _delete_group(system), EMPTY_WITHIN_S)  # a member lasts until its session ends
    try:
        _settle_all(system)
        stopped = _wait_stopped(system, with_state)
        time.sleep(length_s)
        _stop_all(system)
        handled = again(lambda: _handled_since(before, cluster, system), EMPTY_WITHIN_S)
    finally:
        _stop_all(system)
        again(lambda: _put_back(system, kept), EMPTY_WITHIN_S)
        _settle_all(system)
    if stopped != with_state:
        raise FaultFailed(f"tasks {sorted(with_state - stopped)} did not stop without offsets")
    if handled & with_state:
        raise FaultFailed(f"tasks {sorted(handled & with_state)} went on without committed offsets")
    return {"offsets": len(kept), "stopped": sorted(stopped)}


def _stop_all(system: System) -> None:
    for worker in system.workers.values():
        worker.stop()


def _settle_all(system: System) -> None:
    for worker in system.workers.values():
        worker.settle()


def sources(system: System) -> list[TP]:
    """Every partition of every source topic, of the next release too."""
    names = [system.settings.topic(name) for name in (*SOURCES, ADDED_TOPIC)]
    return [(name, partition) for name in names for partition in range(PARTITIONS)]


def _partitions_with_state(cluster: Cluster, system: System) -> set[int]:
    """Those whose changelogs have committed records: an aborted first transaction leaves others there."""
    logs = [(system.settings.changelog(table), p) for table in tables.ALL for p in range(PARTITIONS)]
    ends = cluster.log_ends(logs)
    there = {tp: (at.start, at.stable) for tp, at in ends.items() if at.start < at.stable}
    return {message.partition() or 0 for message in CommittedLog(system.settings).read(there)}


def _ends_of_results(cluster: Cluster, system: System) -> dict[TP, int]:
    """Where each partition of the results ends, records whose marker is still to come included."""
    logs = [(system.settings.topic(RESULTS), partition) for partition in range(PARTITIONS)]
    return {tp: ends.high for tp, ends in cluster.log_ends(logs).items()}


def _handled_since(before: Mapping[TP, int], cluster: Cluster, system: System) -> set[int]:
    """The partitions with newer committed results; markers alone are none."""
    ends = cluster.log_ends(before)
    found = CommittedLog(system.settings).read({tp: (at, ends[tp].stable) for tp, at in before.items()})
    return {message.partition() or 0 for message in found}


def _wait_stopped(system: System, expected: set[int]) -> set[int]:
    """The tasks that some worker said to have stopped, once that is all or the time is over."""
    until = time.monotonic() + STOPPED_WITHIN_S * system.kafka.count
    while True:
        said = {
            partition for partition in expected for worker in system.workers.values()
            if worker.count(STOPPED.format(partition=partition))
        }  # fmt: skip
        if said == expected or time.monotonic() > until:
            return said
        time.sleep(0.1)


def _delete_group(system: System) -> None:
    client = _admin(system)  # it must live until the answer
    client.delete_consumer_groups([APP_ID])[APP_ID].result(10)


def _put_back(system: System, kept: Mapping[TP, int]) -> None:
    client = _admin(system)
    offsets = [TopicPartition(*tp, at) for tp, at in kept.items()]
    wanted = [ConsumerGroupTopicPartitions(APP_ID, offsets)]
    answer = client.alter_consumer_group_offsets(wanted)[APP_ID].result(10)
    for one in answer.topic_partitions:
        if one.error is not None:
            raise KafkaException(one.error)


def _admin(system: System) -> AdminClient:
    return AdminClient(system.settings.client_config() | {"log_level": 0})
