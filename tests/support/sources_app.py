"""A tiny app on the layer whose source topics are chosen at each start; writes down what it handled.

`python -P sources_app.py NAME BROKER FOLDER SOURCES worker ...`: group NAME, SOURCES with commas between, a
table that counts each key's events, one line `topic partition offset` in FOLDER/handled for each event.
Started with a file FOLDER/hold, it never finishes an event of its first source.
"""

import asyncio
import sys
from pathlib import Path
from typing import Any

import faust

import faust_exactly_once as exactly_once
from faust_exactly_once import Event, Options, batched

name, broker, folder = sys.argv[1:4]
sources = sys.argv[4].split(",")
del sys.argv[1:5]
app = faust.App(
    name, datadir=f"{folder}/data", topic_replication_factor=1, worker_redirect_stdouts=False,
    **exactly_once.settings([f"kafka://{broker}"], session_timeout_s=6.0),
)  # fmt: skip
exactly_once.install(app, Options(client_config={"bootstrap.servers": broker}))
seen = app.Table("seen", default=int)
hold = Path(folder, "hold").exists()
handled = Path(folder, "handled").open("a", buffering=1)


async def count(event: Event) -> None:
    """Count the key's events, write down where this one stood."""
    if hold and event.topic == sources[0]:
        await asyncio.Event().wait()
    assert event.key is not None
    seen[event.key.decode()] += 1
    handled.write(f"{event.topic} {event.partition} {event.offset}\n")


async def read(stream: Any) -> None:
    """Hand every batch to `count`."""
    async for batch in stream:
        await batch.each(count)


for source in sources:
    app.agent(batched(app.topic(source)), name=f"read-{source}")(read)

if __name__ == "__main__":
    app.main()
