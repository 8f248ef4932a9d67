"""Defect 8: fetching resumes before the seek, after which the offset that was read last is accepted again."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

from defects.inside import Ours, Plain, append, cluster_with, in_time
from defects.kit import READY, Bench, both_layers


@both_layers("source partitions resume before the seek: what was read in between is read again")
def test_defect_08_no_event_runs_twice_in_one_process(
    broker: str, tmp_path: Path, unique_name: str, layer: str
) -> None:
    """A payment that arrives while a rebalance ends is handled once, its output is there once.

    Left to itself plain Faust did it in 5 of 25 rebalances with 8 partitions; `late` makes it every one.
    """
    # a worker that stalls keeps its task, else it handles the event again, and rightly
    with Bench(broker, tmp_path, unique_name, layer, "charge", broker_session_timeout=30.0) as bench:
        worker = bench.start()
        bench.send({"id": "warm"})
        bench.wait_committed(1)
        worker.say("late")
        worker.say("rejoin")
        worker.wait_for_lines("Setting newly assigned", 2)
        bench.send({"id": "p1"})
        worker.wait_for_lines(READY, 2)
        worker.wait_for_line("handled p1")
        bench.send({"id": "last"})
        assert ["warm", "p1", "last"] == bench.ids("results")
        assert 1 == len(worker.lines("handling p1"))


@both_layers("_drain_messages accepts an offset equal to the last one read")
async def test_defect_08_what_is_fetched_again_is_not_handled_again(
    broker: str, tmp_path: Path, unique_name: str, layer: str
) -> None:
    """A task epoch hands an offset to its handlers once, whatever the fetcher delivers."""
    cluster_with(broker, unique_name)
    append(broker, unique_name, "a")
    fetch_twice = fetch_twice_with_ours if layer == "ours" else fetch_twice_with_plain
    assert ["a", "b"] == await in_time(fetch_twice(broker, tmp_path, unique_name))


async def fetch_twice_with_plain(broker: str, folder: Path, topic: str) -> list[str]:
    """Fetch, let aiokafka stand before the same event again, fetch on."""
    handled: list[str] = []
    news = asyncio.Event()

    async def handle(message: Any) -> None:
        handled.append(message.value.decode())
        news.set()

    async with Plain(folder, topic, broker) as plain:
        consumer = plain.consumer
        consumer.callback = handle
        await plain.join(topic)
        draining = asyncio.create_task(consumer._drain_messages(plain.app._fetcher))  # noqa: SLF001
        await news.wait()
        await consumer._seek(plain.tp(topic), 0)  # noqa: SLF001
        append(broker, topic, "b")
        while "b" not in handled:
            news.clear()
            await news.wait()
        draining.cancel()
        await asyncio.wait([draining])
    return handled


async def fetch_twice_with_ours(broker: str, folder: Path, topic: str) -> list[str]:
    """The same."""
    handled: list[str] = []

    async def handle(event: Any) -> None:
        handled.append(event.value.decode())

    async def fetch() -> None:
        for batch in await ours.fetch():
            await batch.each(handle)
        await asyncio.sleep(0)

    async with Ours(folder, topic, broker) as ours:
        await ours.join(topic)
        await fetch()
        assigned = ours.layer.assigned_tasks[0]
        assert assigned.task is not None
        await ours.consumer.continue_at({(topic, 0): 0}, assigned.membership, assigned.task.epoch)
        append(broker, topic, "b")
        while "b" not in handled:
            await fetch()
    return handled
