"""Defect 17: the transactional producers of all apps in a process lie in one dict of the class."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from defects.inside import Ours, Plain, append, cluster_with, readable_to_its_end
from defects.kit import both_layers

from faust_exactly_once import current_unit
from faust_exactly_once.units import Outgoing


async def two_of_ours(broker: str, folder: Path, topics: list[str], output: str) -> None:
    """The first app ends, then the second handles an event."""

    async def handle(event: Any) -> None:
        current_unit().send(Outgoing(output, event.key, event.value))

    async with Ours(folder, topics[1], broker) as second:
        async with Ours(folder, topics[0], broker) as first:
            await first.open(topics[0])
            await second.join(topics[1])
        append(broker, topics[1], "event")
        for batch in await second.fetch():
            await batch.each(handle)
        await second.layer.supervisor.revoke()


async def two_of_plain(broker: str, folder: Path, topics: list[str], output: str) -> None:
    """The first app ends, then the second commits the result of its event."""
    async with Plain(folder, topics[1], broker) as second:
        async with Plain(folder, topics[0], broker) as first:
            await first.begin(topics[0])
            await second.begin(topics[1])
            await second.send(topics[1], b"event", to=output)
        await second.transactions.commit({second.tp(topics[1]): 1}, start_new_transaction=False)


@both_layers("Producer._transaction_producers is a class attribute: on_stop of one app stops every app's")
async def test_defect_17_an_app_that_ends_leaves_the_others_their_transactions(
    broker: str, tmp_path: Path, unique_name: str, layer: str
) -> None:
    """Of two apps in one process the first ends: the second's output is committed all the same."""
    topics, output = [f"{unique_name}-{number}" for number in (1, 2)], f"{unique_name}-results"
    cluster = cluster_with(broker, *topics, output)
    await (two_of_ours if layer == "ours" else two_of_plain)(broker, tmp_path, topics, output)
    assert await readable_to_its_end(cluster, output)
