"""Defect 15: a revoked partition's producer is stopped amid its transaction, which blocks all readers."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

from defects.inside import Ours, Plain, append, cluster_with, in_time, readable_to_its_end
from defects.kit import both_layers

from faust_exactly_once import current_unit
from faust_exactly_once.units import Outgoing


async def lose_the_task_of_ours(broker: str, folder: Path, source: str, output: str) -> None:
    """One event has committed its result, another has sent its own and goes on: the task is revoked."""
    cluster, reached = cluster_with(broker), asyncio.Event()

    async def handle(event: Any) -> None:
        if b"slow" == event.value:
            await readable_to_its_end(cluster, output)
        current_unit().send(Outgoing(output, event.key, event.value))
        if b"slow" == event.value:
            reached.set()
            await asyncio.Event().wait()

    append(broker, source, "quick", "slow")
    async with Ours(folder, source, broker, grace_s=0.2) as ours:
        await ours.join(source)
        for batch in await ours.fetch():
            await batch.each(handle)
        await in_time(reached.wait())
        await ours.layer.supervisor.revoke()


async def lose_the_task_of_plain(broker: str, folder: Path, source: str, output: str) -> None:
    """One event has committed its result, another has sent its own: the task is revoked."""
    async with Plain(folder, source, broker) as plain:
        await plain.begin(source)
        await plain.send(source, b"quick", to=output)
        await plain.transactions.commit({plain.tp(source): 1})
        await plain.send(source, b"slow", to=output)
        await plain.transactions.on_rebalance(set(), {plain.tp(source)}, set())


@both_layers("stop_transaction closes the producer without an abort")
async def test_defect_15_a_revoked_task_leaves_no_open_transaction(
    broker: str, tmp_path: Path, unique_name: str, layer: str
) -> None:
    """A committed reader of the output gets to its end soon although nobody takes the task over."""
    output = f"{unique_name}-results"
    cluster = cluster_with(broker, unique_name, output)
    lose = lose_the_task_of_ours if layer == "ours" else lose_the_task_of_plain
    await lose(broker, tmp_path, unique_name, output)
    assert await readable_to_its_end(cluster, output)
