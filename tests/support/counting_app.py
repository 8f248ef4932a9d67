"""A tiny app on the layer that counts events per key over all its topics; its release is the list of topics.

`python -P counting_app.py NAME BROKER FOLDER TOPIC,TOPIC... worker ...`: sources NAME-TOPIC, group NAME, one
table that all of them share, a record {topic, partition, offset, count} on NAME-counted for each event. In
FOLDER/spans each handler's run leaves a line `begin` or `end`, then seconds since the epoch, pid, partition.
"""

import asyncio
import os
import sys
import time
from pathlib import Path
from typing import Any

import faust
import orjson

import faust_exactly_once as exactly_once
from faust_exactly_once import Event, Options, batched, output

HANDLER_S = 0.02
SLOW_S = 0.8  # of one event in fifty: within the grace, so that each rebalance meets running handlers

name, broker, folder, topics = sys.argv[1:5]
del sys.argv[1:5]
app = faust.App(
    name, topic_replication_factor=1, worker_redirect_stdouts=False,
    # nobody dies here: a worker that stalls for seconds keeps its tasks
    **exactly_once.settings([f"kafka://{broker}"], session_timeout_s=20.0),
)  # fmt: skip
exactly_once.install(app, Options(client_config={"bootstrap.servers": broker}))
counted = output(app, f"{name}-counted")
counts = app.Table("counts")
spans = os.open(Path(folder, "spans"), os.O_WRONLY | os.O_CREAT | os.O_APPEND)


async def count(event: Event) -> None:
    """One more event of this key, whatever its topic."""
    note("begin", event.partition)
    try:
        key = (event.key or b"").decode()
        found = counts.get(key, 0) + 1
        await asyncio.sleep(SLOW_S if event.offset % 50 == 7 else HANDLER_S)
        counts[key] = found
        told = {"topic": event.topic, "partition": event.partition, "offset": event.offset, "count": found}
        await counted.send(key=event.key, value=orjson.dumps(told))
    finally:
        note("end", event.partition)


def note(what: str, partition: int) -> None:
    """Append one line; whole lines only, whoever else writes."""
    os.write(spans, f"{what} {time.time():.6f} {os.getpid()} {partition}\n".encode())


def read(topic: str) -> None:
    """An agent for one source topic."""

    @app.agent(batched(app.topic(f"{name}-{topic}")), name=topic)
    async def agent(stream: Any) -> None:
        async for batch in stream:
            await batch.each(count)


for one in topics.split(","):
    read(one)

if __name__ == "__main__":
    app.main()
