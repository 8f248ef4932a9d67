"""What a task commits first: it may fail like any other commit; it puts the task's sources on record."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import ConsumerGroupTopicPartitions, TopicPartition
from confluent_kafka.admin import AdminClient
from defects.inside import Ours, append, cluster_with
from support.until import until

from faust_exactly_once import current_unit
from faust_exactly_once.errors import OutcomeUnknown
from faust_exactly_once.membership import Membership


@pytest.mark.parametrize("point", ["between_sends", "before_offsets", "before_commit"])
async def test_a_task_whose_first_commit_failed_begins_again(
    point: str, broker: str, tmp_path: Path, unique_name: str
) -> None:
    """Aborted records in the changelog are no content: without any committed offset no operator is needed."""
    changelog, failures = f"{unique_name}-t-changelog", ["once"]
    cluster = cluster_with(broker, unique_name, changelog)

    def probe(reached: str) -> None:
        if reached == point and failures:
            raise OutcomeUnknown(f"as the test wants, {failures.pop()}")

    async def handle(event: Any) -> None:
        current_unit().write("t", event.key, event.value)

    append(broker, unique_name, "a", "b")
    async with Ours(tmp_path, unique_name, broker, probe=probe) as ours:
        ours.app.Table("t")
        await ours.layer.learn([changelog])
        await ours.join(unique_name)
        for _ in range(2):
            for batch in await ours.fetch():
                await batch.each(handle)
        await ours.layer.supervisor.revoke()
    assert {(unique_name, 0): 2} == cluster.committed(unique_name, [(unique_name, 0)])


async def test_a_release_with_one_more_source_starts_after_an_operator_has_set_the_offsets(
    broker: str, tmp_path: Path, unique_name: str
) -> None:
    """An operator's offsets have no note of the sources: a task that opens there writes it, events or not."""
    old, added = unique_name, f"{unique_name}-added"
    group = Membership(unique_name, -1, "")
    cluster = cluster_with(broker, old, added)
    append(broker, old, "a", "b")
    append(broker, added, "c")
    await asyncio.to_thread(set_offset, broker, unique_name, old, 2)
    async with Ours(tmp_path, unique_name, broker) as ours:
        await ours.open(old, membership=group)
    async with Ours(tmp_path, unique_name, broker) as next_release:
        await next_release.open(old, added, membership=group)
    assert {(old, 0): 2, (added, 0): 0} == cluster.committed(unique_name, [(old, 0), (added, 0)])


def set_offset(broker: str, group: str, topic: str, offset: int) -> None:
    """What `kafka-consumer-groups --reset-offsets` does, once the group has a coordinator."""
    client = AdminClient({"bootstrap.servers": broker})
    wanted = [ConsumerGroupTopicPartitions(group, [TopicPartition(topic, 0, offset)])]

    def taken() -> bool:
        answer = client.alter_consumer_group_offsets(wanted)[group].result(60)
        return all(one.error is None for one in answer.topic_partitions)

    until(taken, "the broker takes the offset")
