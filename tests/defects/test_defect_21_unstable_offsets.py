"""Defect 21: right after a transactional commit the group's offset is still answered as it was before."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

from defects.inside import Plain, append, cluster_with, producer_of
from defects.kit import both_layers

from faust_exactly_once.membership import Membership

COMMITS = 60
Ask = Callable[[], Awaitable[int | None]]


@asynccontextmanager
async def asking(layer: str, broker: str, group: str, folder: Path) -> AsyncIterator[Ask]:
    """How a worker of a layer asks for the committed offset that it continues at."""
    cluster = cluster_with(broker, group)
    append(broker, group, *map(str, range(COMMITS)))
    async with Plain(folder, group, broker) as plain:

        async def ask_ours() -> int | None:
            return cluster.committed(group, [(group, 0)])[group, 0]

        async def ask_plain() -> int | None:
            committed = await plain.consumer.seek_to_committed()
            offset: int | None = committed[plain.tp(group)]
            return offset

        if layer == "plain":
            await plain.join(group)
        yield ask_ours if layer == "ours" else ask_plain


@both_layers("OffsetFetch without require_stable")
async def test_defect_21_a_committed_offset_is_known_as_soon_as_its_commit_returns(
    broker: str, tmp_path: Path, unique_name: str, layer: str
) -> None:
    """Whoever asks after a transactional commit is answered its offset, never the one before; 60 times."""
    producer = producer_of(broker, f"{unique_name}-tasks-0")
    producer.init_transactions()
    answers = []
    async with asking(layer, broker, unique_name, tmp_path) as ask:
        for offset in range(1, COMMITS + 1):
            producer.begin_transaction()
            producer.add_offsets({(unique_name, 0): offset}, Membership(unique_name, -1, ""))
            producer.commit_transaction()
            answers.append(await ask())
    producer.close()
    assert list(range(1, COMMITS + 1)) == answers
