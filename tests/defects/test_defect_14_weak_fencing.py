"""Defect 14: anybody may move the group's offsets; a further topic renumbers the transactional ids."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from confluent_kafka import Consumer
from defects.inside import Ours, Plain, cluster_with, producer_of, readable_to_its_end
from defects.kit import Trouble, both_layers
from faust.types import TP

from faust_exactly_once.errors import MembershipLost
from faust_exactly_once.membership import Membership
from faust_exactly_once.units import Outgoing


@contextmanager
def member_of(broker: str, group: str, topic: str) -> Iterator[Membership]:
    """The membership of the only member of a group, which lives."""
    consumer = Consumer({"bootstrap.servers": broker, "group.id": group, "log_level": 0})
    try:
        consumer.subscribe([topic])
        for _ in range(900):
            consumer.poll(0.1)
            if consumer.assignment():
                metadata: bytes = consumer.consumer_group_metadata()
                (generation,) = struct.unpack_from("=i", metadata, len(b"CGMDv2:"))
                yield Membership(group, generation, consumer.memberid() or "")
                return
        raise Trouble("no assignment in 90 s")
    finally:
        consumer.close()


def commit_of_ours(broker: str, topic: str, membership: Membership) -> None:
    """What a worker of the layer with this membership does."""
    producer = producer_of(broker, f"{topic}-tasks-0")
    producer.init_transactions()
    producer.begin_transaction()
    try:
        producer.add_offsets({(topic, 0): 7}, membership)
        producer.commit_transaction()
    finally:
        producer.close()


async def commit_of_plain(broker: str, topic: str, folder: Path) -> None:
    """What a worker of plain Faust does, whatever became of its membership."""
    async with Plain(folder, topic, broker) as plain:
        await plain.begin(topic)
        await plain.transactions.commit({plain.tp(topic): 7})


@both_layers("TxnOffsetCommit carries no generation")
@pytest.mark.parametrize("stale", ["generation", "member"])
async def test_defect_14_who_is_not_a_member_moves_no_offset(
    broker: str, tmp_path: Path, unique_name: str, layer: str, stale: str
) -> None:
    """Offsets of an earlier generation, or of a member that the group does not know, are refused."""
    cluster = cluster_with(broker, unique_name)
    with member_of(broker, unique_name, unique_name) as member:
        if layer == "plain":
            await commit_of_plain(broker, unique_name, tmp_path)
        else:
            earlier = replace(member, generation=member.generation - 1)
            stranger = replace(member, member_id="nobody")
            error = {"generation": "ILLEGAL_GENERATION", "member": "UNKNOWN_MEMBER_ID"}[stale]
            with pytest.raises(MembershipLost, match=error):
                commit_of_ours(broker, unique_name, {"generation": earlier, "member": stranger}[stale])
        place = unique_name, 0
        assert {place: None} == cluster.committed(unique_name, [place])


def test_defect_14_the_member_moves_its_offset(broker: str, unique_name: str) -> None:
    """What the test above refuses is the membership, nothing else."""
    cluster, place = cluster_with(broker, unique_name), (unique_name, 0)
    with member_of(broker, unique_name, unique_name) as member:
        commit_of_ours(broker, unique_name, member)
        assert {place: 7} == cluster.committed(unique_name, [place])


class Metadata:
    """Topic metadata as aiokafka hands it to an assignor."""

    def __init__(self, *topics: str) -> None:
        self._partitions = dict(zip(topics, (2, 1), strict=False))

    def partitions_for_topic(self, topic: str) -> set[int]:
        """Two of the first topic, one of the second: with as many, Faust would count both to one group."""
        return set(range(self._partitions[topic]))


def assign(plain: Plain, *topics: str) -> set[str]:
    """Give the lone worker its assignment; the transactional ids of partition 0 of the first topic."""
    assignor = plain.app.assignor
    answer = assignor.assign(Metadata(*topics), {"member": assignor.metadata(set(topics))})
    assignor.on_assignment(answer["member"])
    ids: set[str] = plain.transactions._tps_to_transactional_ids({TP(topics[0], 0)})  # noqa: SLF001
    return ids


async def start_plain(broker: str, folder: Path, *topics: str) -> None:
    """Let a worker of plain Faust open the transactions of its assignment."""
    async with Plain(folder, topics[0], broker) as plain:
        await plain.producer.start()
        assign(plain, *topics)
        tps = {plain.tp(topics[0])}
        await plain.transactions.on_rebalance(tps, set(), tps)


async def start_ours(broker: str, folder: Path, *topics: str) -> None:
    """Let a worker of the layer open its task."""
    async with Ours(folder, topics[0], broker) as ours:
        await ours.open(*topics)


async def transactional_id(layer: str, folder: Path, topic: str) -> str:
    """The id of a task that reads one topic; ours is the same in every release."""
    if layer == "ours":
        return f"{topic}-tasks-0"
    async with Plain(folder, topic) as plain:
        (found,) = assign(plain, topic)
        return found


@both_layers("the transactional id holds the rank of a partition count: a further topic renumbers it")
async def test_defect_14_a_further_topic_changes_no_transactional_id(
    broker: str, tmp_path: Path, unique_name: str, layer: str
) -> None:
    """What a worker left open is ended by the next owner of the task, also if that one reads a topic more."""
    topics = unique_name, f"{unique_name}-further"
    cluster = cluster_with(broker, *topics)
    dead = producer_of(broker, await transactional_id(layer, tmp_path / "before", unique_name))
    dead.init_transactions()
    dead.begin_transaction()
    dead.send([Outgoing(unique_name, b"k", b"v")])
    dead.confirm()
    await (start_ours if layer == "ours" else start_plain)(broker, tmp_path, *topics)
    assert await readable_to_its_end(cluster, unique_name)
    dead.close()
