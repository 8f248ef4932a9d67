"""Defect 22: the end of a recovery clears the queue of what standbys have read meanwhile: holes for ever."""

# ruff: noqa: SLF001 - a standby's store and queue are what the test is about

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import faust
import pytest
from defects.inside import NO_BROKER, Plain, ignore, in_time
from defects.kit import Trouble, both_layers
from faust.events import Event
from faust.transport.drivers.aiokafka import Consumer
from faust.types import TP, Message

import faust_exactly_once as exactly_once
from faust_exactly_once import Options, SetupRefused

KEYS = [b"a", b"b", b"c", b"d"]
STANDBY = TP("standby-t-changelog", 0)


class IdleConsumer(Consumer):
    """Faust's consumer of a worker that is nobody's owner."""

    def assignment(self) -> set[TP]:
        """No source partition."""
        return set()

    _drain_messages: Any = ignore


def start_ours(folder: Path) -> None:
    """Start a worker of the layer with a standby, as far as it gets."""
    settings = exactly_once.settings([f"kafka://{NO_BROKER}"]) | {"table_standby_replicas": 1}
    app = faust.App("standby", datadir=folder, web_enabled=False, **settings)
    exactly_once.install(app, Options(client_config={"bootstrap.servers": NO_BROKER}, request_timeout_s=0.5))
    exactly_once.prepare(app)


async def standby_of_plain(folder: Path) -> list[bytes]:
    """Read three changes for a standby, end the recovery of the actives, read a fourth: the keys it holds."""
    async with Plain(folder, "standby", consumer=IdleConsumer, table_standby_replicas=1) as plain:
        app, read_all = plain.app, asyncio.Event()

        async def note(event: Any) -> None:
            if event.message.key == KEYS[-1]:
                read_all.set()

        table = app.Table("t", on_changelog_event=note)
        app.tables.recovery.add_standby(table, STANDBY)
        app.flow_control.resume()
        put(app, range(3))
        await app.tables.recovery.on_recovery_completed()
        put(app, [3])
        await read_until(read_all, app.tables.recovery)
        await app._fetcher.stop()
        if table.persisted_offset(STANDBY) != 3:
            raise Trouble("the standby did not get to offset 3")
        return [key for key in KEYS if table.data._db_for_partition(0).get(key) is not None]


async def read_until(event: asyncio.Event, recovery: Any) -> None:
    """Let the changelog's reader run until then; write what it read."""
    reading = asyncio.create_task(recovery._slurp_changelogs(recovery))
    await in_time(event.wait())
    reading.cancel()
    recovery.flush_buffers()


def put(app: Any, offsets: Iterable[int]) -> None:
    """Give changelog records to whoever reads them for the tables, as the conductor does."""
    for offset in offsets:
        message = Message(*STANDBY, offset, 0.0, 0, [], KEYS[offset], b"1", b"", tp=STANDBY)
        event = Event(app, KEYS[offset], b"1", {}, message)
        app.tables.changelog_queue.put_nowait_enhanced(event, on_pressure_high=list, on_pressure_drop=list)


@both_layers("flow_control.resume() clears the changelog queue after standbys began to read into it")
async def test_defect_22_a_standby_has_every_change_below_its_offset(tmp_path: Path, layer: str) -> None:
    """A standby at offset 3 holds the changes 0 to 3; the layer refuses to start with standbys."""
    if layer == "ours":
        with pytest.raises(SetupRefused, match="table_standby_replicas must be 0"):
            start_ours(tmp_path)
    else:
        assert KEYS == await standby_of_plain(tmp_path)
