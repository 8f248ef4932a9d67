"""Defect 16: a partition that has never committed is not sought back when its consumer starts anew."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

from defects.inside import Ours, Plain, append, cluster_with, in_time
from defects.kit import both_layers

from faust_exactly_once import KafkaUnavailable

EVENTS = ["a", "b", "c"]


async def read_twice_with_plain(broker: str, folder: Path, topic: str) -> tuple[list[str], list[str]]:
    """Fetch, then `perform_seek` as at the end of every recovery, fetch again."""

    async def read() -> list[str]:
        found: list[str] = []
        for _ in range(3):
            async for _, message in plain.consumer.getmany(1.0):
                found.append(message.value.decode())
        return found

    async with Plain(folder, topic, broker) as plain:
        await plain.join(topic)
        first = await read()
        await plain.consumer.perform_seek()
        return first, await read()


async def read_twice_with_ours(broker: str, folder: Path, topic: str) -> tuple[list[str], list[str]]:
    """Fetch, let the task fail before its first commit, fetch again for its next epoch."""

    async def never(event: Any) -> None:
        handled.append(event.value.decode())
        if len(handled) == len(EVENTS):
            all_began.set()
        await asyncio.Event().wait()

    async def read() -> list[str]:
        handled.clear()
        all_began.clear()
        for batch in await ours.fetch():
            await batch.each(never)
        await in_time(all_began.wait())
        return sorted(handled)

    handled: list[str] = []
    all_began = asyncio.Event()
    async with Ours(folder, topic, broker) as ours:
        await ours.join(topic)
        first = await read()
        failed = ours.layer.assigned_tasks[0].task
        assert failed is not None
        ours.layer.state.task_failed(failed, KafkaUnavailable("as the test wants"))
        return first, await read()


@both_layers("seek_to_committed moves only partitions that have a committed offset")
async def test_defect_16_what_was_never_committed_is_read_again(
    broker: str, tmp_path: Path, unique_name: str, layer: str
) -> None:
    """Events that were fetched, never committed, come again when the partition starts anew."""
    cluster_with(broker, unique_name)
    append(broker, unique_name, *EVENTS)
    read_twice = read_twice_with_ours if layer == "ours" else read_twice_with_plain
    first, second = await in_time(read_twice(broker, tmp_path, unique_name))
    assert (EVENTS, EVENTS) == (first, second)
