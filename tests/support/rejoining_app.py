"""A tiny app on the layer whose member rejoins its group again and again; writes down what it handled.

`python -P rejoining_app.py NAME BROKER FOLDER TIMES worker ...`: source topic NAME-src, group NAME, one line
`partition offset` for each handled event in FOLDER/handled. Handlers write no table: a task then opens in
milliseconds, while the fetch of the epoch before it is still under way.
"""

import asyncio
import os
import signal
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import faust

import faust_exactly_once as exactly_once
from faust_exactly_once import Event, Options, batched

name, broker, folder, times = sys.argv[1:5]
del sys.argv[1:5]
app = faust.App(
    name, datadir=f"{folder}/data", topic_replication_factor=1, worker_redirect_stdouts=False,
    **exactly_once.settings([f"kafka://{broker}"], session_timeout_s=6.0),
)  # fmt: skip
exactly_once.install(app, Options(client_config={"bootstrap.servers": broker}))
events = batched(app.topic(f"{name}-src"))
app.Table("t")
handled = Path(folder, "handled").open("a", buffering=1)
HANDLED_BETWEEN = 100
counted: Counter[int] = Counter()
news = asyncio.Event()


async def note(event: Event) -> None:
    """Write down where the event stood."""
    handled.write(f"{event.partition} {event.offset}\n")
    counted[event.partition] += 1
    news.set()


@app.agent(events)
async def read(stream: Any) -> None:
    """Hand every batch to `note`."""
    async for batch in stream:
        await batch.each(note)


@app.task  # type: ignore[untyped-decorator]
async def rejoin() -> None:
    """Ask for a rebalance every second, amid work, then end the worker in order."""
    consumer: Any = app.consumer
    thread = consumer._thread
    for _ in range(int(times)):
        await asyncio.sleep(1.0)
        wanted = {partition: counted[partition] + HANDLED_BETWEEN for partition in (0, 1)}
        while any(counted[partition] < count for partition, count in wanted.items()):
            news.clear()
            await news.wait()
        thread.thread_loop.call_soon_threadsafe(thread._consumer._coordinator.request_rejoin)
    await asyncio.sleep(2.0)
    os.kill(os.getpid(), signal.SIGTERM)


if __name__ == "__main__":
    app.main()
